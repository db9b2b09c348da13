/** CHECK fails when interception is gone, and only then: Nomad answers with the destruction of a running allocation's network. */
import { readFileSync, writeFileSync } from 'node:fs';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../support/suite.ts';
import { DAMAGES, harm, NFT_DAMAGES, TABLE } from './damages.ts';
import {
  backendNamed,
  BACKENDS,
  call,
  fails,
  leftovers,
  makeLegacyFolder,
  newNamespace,
  REQUEST,
  sh,
  succeeds,
} from './scene.ts';

const test = suite('consul-tproxy: CHECK', { limit: 60 });

test.before(makeLegacyFolder);

const children: ChildProcess[] = [];
test.after(() => {
  for (const child of children) child.kill('SIGKILL');
});

for (const on of BACKENDS) {
  test(`${on.name}: healthy rules pass without a word, and stay as they are`, () => {
    const netns = newNamespace();
    succeeds('ADD', { netns, on });
    const before = sh(`ip netns exec ${netns} nft -a list ruleset`) + leftovers(netns);
    for (const check of ['structure', 'strict', 'off'])
      assert.equal(succeeds('CHECK', { netns, on, config: { check } }), []);
    assert.is(sh(`ip netns exec ${netns} nft -a list ruleset`) + leftovers(netns), before);
  });

  for (const damage of on.backend === 'nftables' ? [...DAMAGES, ...NFT_DAMAGES] : DAMAGES) {
    test(`${on.name}: finds ${damage.what}, names it, and passes again after the next ADD`, () => {
      const netns = newNamespace();
      succeeds('ADD', { netns, on });
      harm(netns, on, damage);
      const { code, msg, details } = fails('CHECK', { netns, on });
      assert.is(code, 999);
      assert.match(`${msg} ${details ?? ''}`, damage.says);
      assert.equal(succeeds('CHECK', { netns, on, config: { check: 'off' } }), []);
      succeeds('ADD', { netns, on });
      assert.equal(succeeds('CHECK', { netns, on, config: { check: 'strict' } }), []);
    });
  }

  test(`${on.name}: drift is told and does not fail; strict fails`, () => {
    const drifted = {
      'DNS that is another': { ...REQUEST, ConsulDNSIP: '192.168.1.118' },
      'an exclusion more': { ...REQUEST, ExcludeOutboundPorts: ['3306'] },
      'an exclusion less': { ...REQUEST, ExcludeInboundPorts: [] },
    };
    const netns = newNamespace();
    succeeds('ADD', { netns, on });
    for (const [what, request] of Object.entries(drifted)) {
      const warnings = succeeds('CHECK', { netns, on, request });
      assert.ok(warnings.length > 0, what);
      for (const line of warnings)
        assert.match(line, /^consul-cni: differs from what the job asks for now: /);
      assert.match(
        fails('CHECK', { netns, on, request, config: { check: 'strict' } }).msg,
        /the rules are not as configured/,
      );
    }
  });

  test(`${on.name}: lost DNS rules and lost refusals are told and do not fail`, () => {
    const netns = newNamespace();
    succeeds('ADD', { netns, on });
    if (on.backend === 'nftables')
      sh(
        `ip netns exec ${netns} nft 'flush chain ${TABLE} CONSUL_DNS_REDIRECT; flush chain ${TABLE} CONSUL_FILTER_OUTPUT'`,
      );
    else
      sh(
        `ip netns exec ${netns} sh -c 'PATH=${on.path}; iptables -t nat -F CONSUL_DNS_REDIRECT; ip6tables -F OUTPUT'`,
      );
    const warnings = succeeds('CHECK', { netns, on }).join('\n');
    assert.match(warnings, /CONSUL_DNS_REDIRECT \(ipv4 nat\): missing -d 192\.168\.1\.117\/32 -p udp/);
    assert.match(warnings, /OUTPUT \(ipv6 filter\): missing -p tcp -m conntrack/);
    assert.is(fails('CHECK', { netns, on, config: { check: 'strict' } }).code, 999);
  });

  test(`${on.name}: arguments without DNS never fail, however strict (Consul may not be up yet when Nomad starts)`, () => {
    const netns = newNamespace();
    succeeds('ADD', { netns, on });
    const request = { ...REQUEST, ConsulDNSIP: '', ConsulDNSPort: 0 };
    for (const check of ['structure', 'strict']) {
      const warnings = succeeds('CHECK', { netns, on, request, config: { check } });
      assert.is(warnings.length, 1);
      assert.match(
        warnings[0] ?? '',
        /carry no Consul DNS, but the rules hand queries to 192\.168\.1\.117 port 8600; left as it is/,
      );
    }
  });

  test(`${on.name}: a backend changed since does not fail`, () => {
    for (const other of BACKENDS.filter(({ backend }) => backend !== on.backend)) {
      const netns = newNamespace();
      succeeds('ADD', { netns, on: other });
      const warnings = succeeds('CHECK', { netns, on });
      assert.equal(warnings.length, 1, warnings.join('\n'));
      assert.match(
        warnings[0] ?? '',
        new RegExp(`the rules stand in ${other.name}, not in ${on.name} as configured now`),
      );
    }
  });
}

test('rules that consul-cni made pass: a fleet can change over without losing allocations', () => {
  const vectors = JSON.parse(
    readFileSync(resolve(import.meta.dirname, '../../vectors/tproxy-vectors.json'), 'utf8'),
  ) as {
    config: object;
    dualStack: boolean;
    commands: string[];
  }[];
  for (const { config, commands, dualStack } of vectors.filter((vector) => !vector.dualStack)) {
    const netns = newNamespace();
    sh(`ip netns exec ${netns} sh -ec '${commands.join('\n')}'`);
    const { exitCode, stdout } = call('CHECK', { netns, request: config });
    assert.is(exitCode, 0, `${stdout} ${String(dualStack)}`);
  }
});

test('so do those of its coming nftables version, and the next ADD takes them over on any backend', () => {
  const file = resolve(import.meta.dirname, '../../vectors/tproxy-nft-vectors.json');
  const vectors = JSON.parse(readFileSync(file, 'utf8')) as {
    name: string;
    config: object;
    dualStack: boolean;
    script: string[];
  }[];
  const fresh = newNamespace();
  for (const { config, script, name } of vectors.filter((vector) => !vector.dualStack)) {
    const netns = newNamespace();
    writeFileSync('/tmp/script.nft', `${script.join('\n')}\n`);
    sh(`ip netns exec ${netns} nft -f /tmp/script.nft`);
    const { exitCode, stdout } = call('CHECK', { netns, request: config, on: backendNamed('nftables') });
    assert.is(exitCode, 0, `${name}: ${stdout}`);
    if (name !== 'nomad-countdash-dashboard') continue;
    for (const on of BACKENDS) {
      sh(`ip netns exec ${netns} nft -f /tmp/script.nft`);
      succeeds('ADD', { netns, on });
      succeeds('ADD', { netns: fresh, on });
      assert.is(leftovers(netns), leftovers(fresh));
    }
  }
});

test("another uid or port in the node's configuration is news, as long as a proxy serves behind the rules", async () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  const request = { ...REQUEST, ProxyUserID: '5995', ProxyOutboundPort: 15002 };
  assert.match(fails('CHECK', { netns, request }).details ?? '', /--uid-owner 5995.*--to-ports 15002/);
  await serve(netns, 101, 15001);
  const warnings = succeeds('CHECK', { netns, request }).join('\n');
  assert.match(
    warnings,
    /CONSUL_PROXY_REDIRECT.*missing -p tcp -j REDIRECT --to-ports 15002; not planned -p tcp -j REDIRECT --to-ports 15001/,
  );
  // Inbound is the allocation's own port: that cannot be news.
  assert.is(fails('CHECK', { netns, request: { ...request, ProxyInboundPort: 9998 } }).code, 999);
  assert.is(fails('CHECK', { netns, request, config: { check: 'strict' } }).code, 999);
});

test('a workload that runs as the proxy is told, the proxy itself is not', async () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  await serve(netns, 101, 15001);
  assert.equal(succeeds('CHECK', { netns }), []);
  const clash = spawn(
    'ip',
    ['netns', 'exec', netns, 'setpriv', '--reuid=101', '--clear-groups', 'sleep', '600'],
    { stdio: 'ignore' },
  );
  children.push(clash);
  await untilRunning(clash, 'sleep');
  const [warning = ''] = succeeds('CHECK', { netns });
  assert.match(
    warning,
    new RegExp(`not in the mesh: sleep \\(pid ${clash.pid}, uid 101\\) runs as the proxy's user`),
  );
});

test('a process counts as the user that the rules see, whatever its own user namespace calls it', async () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  await serve(netns, 101, 15001);
  // Root of a rootless container that user 101 runs: the rules let it through.
  const rootless = spawn(
    'ip',
    `netns exec ${netns} setpriv --reuid=101 --clear-groups unshare --user --map-root-user sleep 600`.split(
      ' ',
    ),
    { stdio: 'ignore' },
  );
  // User 101 of a container with users of its own: 100101 to the rules, which capture it.
  const container = spawn('ip', ['netns', 'exec', netns, 'unshare', '--user', 'sleep', '600'], {
    stdio: 'ignore',
  });
  children.push(rootless, container);
  await untilRunning(rootless, 'sleep');
  await untilRunning(container, 'sleep');
  for (const map of ['uid_map', 'gid_map']) writeFileSync(`/proc/${container.pid}/${map}`, '0 100000 65536');
  const captured = spawn(
    'nsenter',
    `-t ${container.pid} --user --net setpriv --reuid=101 --clear-groups sleep 600`.split(' '),
    { stdio: 'ignore' },
  );
  children.push(captured);
  await untilRunning(captured, 'sleep');
  assert.match(readFileSync(`/proc/${captured.pid}/status`, 'utf8'), /^Uid:\t100101\t/m);
  const [warning = '', ...others] = succeeds('CHECK', { netns });
  assert.match(warning, `not in the mesh: sleep (pid ${rootless.pid}, uid 101) runs as the proxy's user`);
  assert.equal(others, []);
});

test("a mistake in the node's defaults is told, and condemns nobody", () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  sh('mkdir -p /etc/weft; echo "{" > /etc/weft/weft.json');
  try {
    const warnings = succeeds('CHECK', { netns });
    assert.is(warnings.length, 1);
    assert.match(warnings[0] ?? '', /going by the built-in defaults: \/etc\/weft\/weft\.json/);
    sh(`ip netns exec ${netns} iptables -t nat -F OUTPUT`);
    assert.is(fails('CHECK', { netns }).code, 999);
    sh(`printf '{"tproxy":{"check":"off"}}' > /etc/weft/weft.json`);
    assert.equal(succeeds('CHECK', { netns }), []);
  } finally {
    sh('rm -r /etc/weft');
  }
});

test('without arguments CHECK cannot know what to look for, and says so', () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  assert.match(fails('CHECK', { netns, request: '' }).msg, /CNI_ARGS carry no CONSUL_IPTABLES_CONFIG/);
});

test.run();

async function serve(netns: string, uid: number, port: number): Promise<void> {
  const program = resolve(import.meta.dirname, 'programs/listen.ts');
  const spec = JSON.stringify([{ protocol: 'tcp', host: '127.0.0.1', port, label: 'proxy' }]);
  const words = [
    'netns',
    'exec',
    netns,
    process.execPath,
    '--no-warnings',
    '--experimental-ffi',
    program,
    String(uid),
    spec,
  ];
  const child = spawn('ip', words, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  await once(child.stdout, 'data');
}

/** `ip netns exec` and setpriv become the program they start. */
async function untilRunning({ pid }: ChildProcess, name: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (readFileSync(`/proc/${pid}/comm`, 'utf8').trim() !== name) {
    assert.ok(Date.now() < deadline, `${name} never started`);
    await new Promise((next) => setTimeout(next, 10));
  }
}
