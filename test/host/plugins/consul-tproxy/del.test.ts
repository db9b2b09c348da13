/** DEL, GC and STATUS: by names alone, whatever is left of the allocation. */
import { existsSync, readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { errorOf, runPluginProcess } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { assertUntouched, hostState } from '../../../support/host-state.ts';
import {
  backendNamed,
  BACKENDS,
  call,
  leftovers,
  makeLegacyFolder,
  newNamespace,
  REQUEST,
  sh,
  succeeds,
} from '../../../support/tproxy.ts';

const test = suite('consul-tproxy: DEL, GC, STATUS', { limit: 60 });

test.before(makeLegacyFolder);

for (const on of BACKENDS) {
  test(`${on.name}: takes everything away, twice, without arguments`, () => {
    const netns = newNamespace();
    succeeds('ADD', {
      netns,
      on,
      config: { udp: 'reject', dnsCapture: 'all', ipv6: 'redirect' },
      request: { ...REQUEST, ConsulDNSIP: 'fd00::1' },
    });
    assert.ok(existsSync(`/etc/netns/${netns}/resolv.conf`));
    for (const time of ['first', 'second']) {
      const { exitCode, stdout, stderr } = call('DEL', { netns, on });
      assert.equal([exitCode, stdout, stderr], [0, '', ''], time);
      assert.is(leftovers(netns), '', time);
      assert.not.ok(existsSync(`/etc/netns/${netns}`));
    }
  });

  test(`${on.name}: also what another backend holds`, () => {
    for (const other of BACKENDS) {
      const netns = newNamespace();
      succeeds('ADD', { netns, on: other });
      succeeds('DEL', { netns, on, config: { backend: undefined } });
      assert.is(leftovers(netns), '', other.name);
    }
  });
}

for (const [was, now, program] of [
  ['iptables-nft', 'legacy', 'xtables-legacy-multi'],
  ['iptables-legacy', 'nft', 'xtables-nft-multi'],
] as const) {
  test(`${was}: the host has only ${now} programs since ADD; CHECK passes, DEL leaves nothing`, () => {
    const folder = `/run/only-${now}-programs`;
    sh(`mkdir -p ${folder}; for tool in iptables ip6tables; do for end in '' -save -restore; do
      ln -sf /usr/sbin/${program} ${folder}/$tool$end; done; done`);
    const on = { ...backendNamed(was), path: folder };
    const netns = newNamespace();
    succeeds('ADD', { netns, on: backendNamed(was) });
    const warnings = succeeds('CHECK', { netns, on });
    assert.equal(warnings, [
      `consul-cni: the rules are in ${was}, but "backend" now selects iptables-${now}; the next ADD moves them`,
    ]);
    assert.equal(succeeds('DEL', { netns, on }), []);
    assert.is(leftovers(netns), '');
  });
}

test('what consul-cni left, whole or half, goes too', () => {
  const netns = newNamespace();
  sh(`ip netns exec ${netns} sh -ec 'for c in INBOUND IN_REDIRECT OUTPUT; do iptables -t nat -N CONSUL_PROXY_$c; done
    iptables -t nat -A OUTPUT -p tcp -j CONSUL_PROXY_OUTPUT; iptables -t nat -A OUTPUT -p tcp -j CONSUL_PROXY_OUTPUT'`);
  succeeds('DEL', { netns });
  assert.is(leftovers(netns), '');
});

test('DEL succeeds when the namespace is gone, never existed, or the path is no namespace', () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  sh(`ip netns del ${netns}`);
  for (const path of [netns, 'never-made', '', '/etc/hostname', '/proc/self/ns/user']) {
    const { exitCode, stdout, stderr } = call('DEL', { netns: path });
    assert.equal([exitCode, stdout, stderr], [0, '', ''], path);
  }
  assert.not.ok(existsSync('/etc/netns'));
});

test('a DEL that no longer knows the namespace, or gets another path, finds the resolv.conf by the container', () => {
  const other = newNamespace();
  succeeds('ADD', { netns: other, id: 'alive' });
  for (const path of ['', 'none']) {
    const netns = newNamespace();
    succeeds('ADD', { netns, id: 'gone' });
    succeeds('DEL', { netns: path, id: 'gone' });
    assert.not.ok(existsSync(`/etc/netns/${netns}`));
    assert.ok(existsSync(`/etc/netns/${other}/resolv.conf`));
  }
  succeeds('DEL', { netns: other, id: 'alive' });
});

test('GC removes the resolv.conf of attachments that are not valid, of its own network only', () => {
  const names = { stale: newNamespace(), valid: newNamespace(), elsewhere: newNamespace() };
  succeeds('ADD', { netns: names.stale, id: 'stale' });
  succeeds('ADD', { netns: names.valid, id: 'valid' });
  succeeds('ADD', { netns: names.elsewhere, id: 'stale', config: { name: 'other' } });
  const gc = (valid: object): void => {
    const stdin = { cniVersion: '1.1.0', name: 'nomad', type: 'consul-cni', ...valid };
    const { exitCode, stdout } = runPluginProcess('consul-cni', {
      command: 'GC',
      env: { CNI_PATH: '/opt/cni/bin' },
      stdin,
    });
    assert.equal([exitCode, stdout], [0, '']);
  };
  const standing = (): string[] =>
    Object.entries(names).flatMap(([key, name]) =>
      existsSync(`/etc/netns/${name}/resolv.conf`) ? [key] : [],
    );
  gc({});
  assert.equal(standing(), ['stale', 'valid', 'elsewhere'], 'without a list nothing is known to be stale');
  gc({ 'cni.dev/valid-attachments': [{ containerID: 'valid', ifname: 'eth0' }] });
  assert.equal(standing(), ['valid', 'elsewhere']);
});

for (const on of BACKENDS) {
  test(`${on.name}: STATUS says that this kernel can, and leaves the host as it was`, () => {
    const before = hostState();
    const stdin = {
      cniVersion: '1.1.0',
      name: 'nomad',
      type: 'consul-cni',
      backend: on.backend,
      ipv6: 'redirect',
    };
    const outcome = runPluginProcess('consul-cni', {
      command: 'STATUS',
      env: { CNI_PATH: '/opt/cni/bin', PATH: on.path },
      stdin,
    });
    assert.equal([outcome.exitCode, outcome.stdout, outcome.stderr], [0, '', '']);
    assertUntouched(before, 'STATUS');
  });
}

test('STATUS says why a host cannot', () => {
  const folder = '/run/failing';
  sh(`mkdir -p ${folder}; for t in iptables ip6tables; do ln -sf /usr/sbin/xtables-nft-multi ${folder}/$t-save
    printf '#!/bin/sh\\necho "Extension owner revision 1 not supported, missing kernel module?" >&2; exit 2\\n' > ${folder}/$t-restore; chmod +x ${folder}/$t-restore; done`);
  const stdin = { cniVersion: '1.1.0', name: 'nomad', type: 'consul-cni', backend: 'iptables' };
  const env = { CNI_PATH: '/opt/cni/bin', PATH: `${folder}:/usr/sbin:/usr/bin` };
  const refused = 'getsockopt:error=ENOPROTOOPT';
  const outcome = runPluginProcess('consul-cni', { command: 'STATUS', env, stdin, refused });
  const { code, msg, details } = errorOf(outcome);
  assert.is(code, 50);
  assert.match(msg, /this host cannot hold transparent-proxy rules/);
  assert.match(details ?? '', /Extension owner revision 1 not supported/);
});

test('the version is printed as Nomad’s fingerprint reads it', () => {
  const { exitCode, stdout, stderr } = runPluginProcess('consul-cni', { argv: ['--version'] });
  assert.equal([exitCode, stdout], [0, '']);
  const version = /^CNI consul-cni plugin v(\d+)\.\d+\.\d+$/m.exec(stderr)?.[1];
  assert.ok(Number(version) >= 2, stderr);
  const manifest = JSON.parse(readFileSync(new URL('../../../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  assert.ok(stderr.includes(`v${manifest.version}\n`));
});

test.run();
