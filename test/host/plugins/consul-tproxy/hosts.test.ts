/** Hosts that are not like most: Docker with user namespaces, no ip6tables, a network with IPv6. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { withCommandPrefixes } from '../../../../plugins/consul-tproxy/iptables/command-prefix.ts';
import { suite } from '../../../support/suite.ts';
import {
  backendNamed,
  BACKENDS,
  call,
  fails,
  leftovers,
  makeLegacyFolder,
  newNamespace,
  PREVIOUS,
  REQUEST,
  sh,
  succeeds,
} from '../../../support/tproxy.ts';

const test = suite('consul-tproxy: hosts', { limit: 60 });

const children: ChildProcess[] = [];
test.before(makeLegacyFolder);
test.after(() => {
  for (const child of children) child.kill('SIGKILL');
});

for (const on of BACKENDS) {
  test(`${on.name}: in a namespace of another user namespace the uids are those seen inside`, async () => {
    const pid = await inUserNamespace();
    const netns = `/proc/${pid}/ns/net`;
    const inside = `nsenter -t ${pid} -n`;
    sh(`${inside} ip link set lo up; ${inside} ip addr add 192.0.2.1/32 dev lo`);
    assert.equal(succeeds('ADD', { netns, on }), []);
    assert.equal(succeeds('CHECK', { netns, on }), []);
    await listen(pid, [
      { protocol: 'tcp', host: '0.0.0.0', port: 15001, label: 'envoy' },
      { protocol: 'tcp', host: '192.0.2.1', port: 80, label: 'remote' },
    ]);
    assert.is(probe(pid, 1000), 'envoy');
    // 101 inside is 100101 outside.
    assert.is(probe(pid, 101), 'remote');
    succeeds('ADD', { netns, on });
    succeeds('DEL', { netns, on });
    assert.is(probe(pid, 1000), 'remote');
    assert.not.match(
      sh(`${inside} sh -c 'iptables-nft-save; iptables-legacy-save; nft list ruleset'`),
      /CONSUL/,
    );
  });
}

test('nftables needs no program in a namespace of another user namespace; iptables says which one it lacks', async () => {
  const pid = await inUserNamespace();
  const netns = `/proc/${pid}/ns/net`;
  const on = backendNamed('nftables');
  const places = sh('ls /usr/bin/nsenter /bin/nsenter 2>/dev/null || true')
    .split('\n')
    .filter((line) => line !== '');
  for (const place of places) sh(`mount --bind /dev/null ${place}`);
  try {
    const { msg, details } = fails('ADD', { netns });
    assert.match(`${msg} ${details ?? ''}`, /this host has no nsenter.*"backend": "nftables"/);
    assert.equal(succeeds('ADD', { netns, on }), []);
    assert.equal(succeeds('CHECK', { netns, on, config: { check: 'strict' } }), []);
    assert.equal(succeeds('DEL', { netns, on }), []);
  } finally {
    for (const place of places.toReversed()) sh(`umount ${place}`);
  }
  assert.not.match(sh(`nsenter -t ${pid} -n nft list ruleset`), /CONSUL/);
});

test('iptables runs unwrapped in an ordinary namespace, and without the name service where that needs a network', () => {
  assert.equal(
    withCommandPrefixes(({ nft, legacy }) => ({ nft: nft(), legacy: legacy() })),
    { nft: [], legacy: [] },
  );
  const before = readFileSync('/etc/nsswitch.conf', 'utf8');
  try {
    writeFileSync('/etc/nsswitch.conf', '# passwd: ldap\npasswd: files [NOTFOUND=return] systemd # ldap\n');
    assert.equal(
      withCommandPrefixes(({ nft, legacy }) => ({ nft: nft(), legacy: legacy() })),
      { nft: [], legacy: [] },
    );
    writeFileSync('/etc/nsswitch.conf', 'passwd: files sss\n');
    assert.equal(
      withCommandPrefixes(({ nft }) => nft()),
      [],
    );
    assert.match(
      withCommandPrefixes(({ legacy }) => legacy()).join(' '),
      /unshare --mount -- \S+sh -c \/\S+\/mount --bind \/dev\/null \/etc\/nsswitch\.conf/,
    );
  } finally {
    writeFileSync('/etc/nsswitch.conf', before);
  }
});

test('without ip6tables an allocation without IPv6 starts with a warning; one with a global address does not start', () => {
  sh(
    'mkdir -p /run/hidden; cp -a /etc/alternatives/ip6tables* /run/hidden/; rm /etc/alternatives/ip6tables*',
  );
  try {
    const netns = newNamespace();
    assert.match(succeeds('ADD', { netns }).join(), /no ip6tables: if the allocation gets an IPv6 address/);
    assert.equal(succeeds('CHECK', { netns }), []);
    succeeds('DEL', { netns });
    assert.equal(succeeds('ADD', { netns, config: { ipv6: 'bypass' } }), []);
    succeeds('DEL', { netns });
    // Known from the plugins before, or seen in the namespace.
    const prevResult = { ...PREVIOUS, ips: [...PREVIOUS.ips, { version: '6', address: 'fd00::2/64' }] };
    const error = fails('ADD', { netns, config: { prevResult } });
    assert.match(
      error.msg,
      /this host has no ip6tables, needed for IPv6 rules \(the allocation has the address fd00::2\)/,
    );
    assert.match(error.details ?? '', /"ipv6": "bypass"/);
    sh(`ip -n ${netns} addr add 2001:db8::2/64 dev lo nodad`);
    assert.match(fails('ADD', { netns }).msg, /the allocation has the address 2001:db8::2\)/);
    assert.is(leftovers(netns), '');
    const plain = newNamespace();
    assert.match(
      fails('ADD', { netns: plain, config: { ipv6: 'redirect' } }).msg,
      /the job or the configuration asks for them/,
    );
    assert.match(
      fails('ADD', { netns: plain, request: { ...REQUEST, ConsulDNSIP: 'fd00::53' } }).msg,
      /asks for them/,
    );
    // nftables needs no ip6tables.
    assert.equal(
      succeeds('ADD', {
        netns,
        on: BACKENDS[2] ?? BACKENDS[0] ?? { name: 'nftables', backend: 'nftables', path: '' },
      }),
      [],
    );
  } finally {
    sh('cp -a /run/hidden/* /etc/alternatives/');
  }
});

for (const legacy of ['iptables', 'ip6tables']) {
  test(`${legacy} legacy, the other family not: each family's rules exist once, where its own program looks`, () => {
    const folder = `/run/only-${legacy}-legacy`;
    sh(
      `mkdir ${folder}; for end in '' -save -restore; do ln -s /usr/sbin/xtables-legacy-multi ${folder}/${legacy}$end; done`,
    );
    const on = {
      name: 'iptables-nft',
      backend: 'iptables',
      path: `${folder}:/usr/sbin:/usr/bin:/sbin:/bin`,
    } as const;
    const netns = newNamespace();
    for (const before of [...BACKENDS, on]) {
      succeeds('ADD', { netns, on: before });
      assert.equal(succeeds('ADD', { netns, on }), []);
      assert.equal(succeeds('CHECK', { netns, on, config: { check: 'strict' } }), []);
      const holders = leftovers(netns).match(/^# .*$/gm);
      const wanted = ['iptables', 'ip6tables'].map(
        (tool) => `# ${tool}-${tool === legacy ? 'legacy' : 'nft'}-save`,
      );
      assert.equal(holders?.sort(), wanted.sort(), before.name);
    }
    succeeds('DEL', { netns, on });
    assert.is(leftovers(netns), '');
  });
}

test('without any iptables the rules go to nftables by themselves', () => {
  sh('mkdir -p /run/gone; cp -a /etc/alternatives/ip*tables* /run/gone/; rm /etc/alternatives/ip*tables*');
  try {
    const netns = newNamespace();
    assert.equal(succeeds('ADD', { netns, config: { backend: undefined } }), []);
    assert.match(sh(`ip netns exec ${netns} nft list tables`), /inet consul_tproxy/);
    assert.equal(succeeds('CHECK', { netns, config: { backend: undefined } }), []);
    const { details } = fails('ADD', { netns: newNamespace(), config: { backend: 'iptables' } });
    assert.match(details ?? '', /install iptables/);
    succeeds('DEL', { netns });
    assert.is(leftovers(netns), '');
  } finally {
    sh('cp -a /run/gone/* /etc/alternatives/');
  }
});

test('a read-only /etc costs the resolv.conf, not the allocation', () => {
  const netns = newNamespace();
  const mounted = 'mount --bind /etc /etc && mount -o remount,bind,ro /etc';
  sh(mounted);
  try {
    const { exitCode, stderr } = call('ADD', { netns });
    assert.is(exitCode, 0);
    assert.match(stderr, /cannot write \/etc\/netns\/.*\/resolv\.conf: /);
  } finally {
    sh('umount /etc');
  }
});

test.run();

/** A process with user and network namespace of its own, as Docker's userns-remap makes them. @returns its pid */
async function inUserNamespace(): Promise<number> {
  const child = spawn('unshare', ['--user', '--net', 'sh', '-c', 'echo made; exec sleep 600'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  await once(child.stdout, 'data');
  const pid = child.pid ?? 0;
  writeFileSync(`/proc/${pid}/uid_map`, '0 100000 65536');
  writeFileSync(`/proc/${pid}/gid_map`, '0 100000 65536');
  return pid;
}

function programIn(pid: number, name: string, uid: number, spec: readonly object[]): string[] {
  const file = resolve(import.meta.dirname, 'programs', name);
  const node = [
    process.execPath,
    '--no-warnings',
    '--experimental-ffi',
    file,
    String(uid),
    JSON.stringify(spec),
  ];
  return ['-t', String(pid), '--user', '--net', '--', ...node];
}

async function listen(pid: number, listeners: readonly object[]): Promise<void> {
  const child = spawn('nsenter', programIn(pid, 'listen.ts', 0, listeners), {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  await once(child.stdout, 'data');
}

function probe(pid: number, uid: number): string {
  const target = [{ protocol: 'tcp', host: '192.0.2.1', port: 80 }];
  const { stdout, stderr } = spawnSync('nsenter', programIn(pid, 'probe.ts', uid, target), {
    encoding: 'utf8',
  });
  assert.is.not(stdout, '', stderr);
  const { label, error } = JSON.parse(stdout) as { label?: string; error?: string };
  return label ?? error ?? '';
}
