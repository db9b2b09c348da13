import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import * as assert from 'uvu/assert';
import {
  BRIDGE,
  LAUNCHERS,
  launchersMissing,
  LOOPBACK,
  NodeAgent,
  SOCKET,
  WEFT,
} from '../../support/node-agent.ts';
import { variables } from '../../support/plugin.ts';
import { suite } from '../../support/suite.ts';
import { sh } from '../../support/variants.ts';

/** The node agent and its launchers, on a host of their own. */
const test = suite('node agent', { limit: 120 });
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

interface Options {
  readonly netns?: string;
  readonly path?: string;
  readonly prefix?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** One call by a launcher. @returns exit code, stdout, stderr */
function call(
  plugin: string,
  command: string,
  config: object,
  { netns = '/run/netns/pod', path = LAUNCHERS, prefix = [], env = {} }: Options = {},
): [number | null, string, string] {
  const [file, ...args] = [...prefix, `${LAUNCHERS}/${plugin}`];
  const { status, stdout, stderr } = spawnSync(file, args, {
    env: { ...variables({ id: 'c1', netns, path }), CNI_COMMAND: command, PATH, ...env },
    input: JSON.stringify(config),
    encoding: 'utf8',
  });
  return [status, stdout, stderr];
}

let agent: NodeAgent;
test.beforeEach(() => {
  spawnSync('ip', ['netns', 'del', 'pod']);
  spawnSync('ip', ['link', 'del', 'agent0']);
  sh('ip netns add pod');
});
test.afterEach(async () => {
  await agent.stop();
});

if (launchersMissing !== undefined) test.skip('all', launchersMissing);
else addTests();

function addTests(): void {
  test('only root reaches the socket', async () => {
    rmSync('/run/weft', { recursive: true, force: true });
    mkdirSync('/run/weft', { mode: 0o755 });
    agent = await NodeAgent.start();
    assert.is(lstatSync('/run/weft').mode & 0o777, 0o700);
    assert.is(lstatSync(SOCKET).mode & 0o777, 0o600);
  });

  test('what is no socket of root’s stays, and the agent does not start', async () => {
    agent = await NodeAgent.start();
    await agent.stop();
    const obstacles: Readonly<Record<string, () => void>> = {
      'a file': () => writeFileSync(SOCKET, 'x'),
      'a symbolic link': () => symlinkSync('/run/elsewhere', SOCKET),
      'a FIFO': () => sh(`mkfifo ${SOCKET}`),
    };
    for (const [what, make] of Object.entries(obstacles)) {
      make();
      const { status, stderr } = spawnSync(WEFT, ['agent', '--warm-up', '0'], { encoding: 'utf8' });
      assert.is(status, 1, what);
      assert.match(stderr, `${SOCKET} exists and is no socket of root's`);
      rmSync(SOCKET);
    }
    assert.not(existsSync('/run/elsewhere'));
  });

  test('it serves a container’s life, with host-local in the same process, and leaves nothing', async () => {
    agent = await NodeAgent.start();
    const [added, result, stderr] = call('bridge', 'ADD', BRIDGE);
    assert.equal([added, stderr], [0, ''], result);
    const { interfaces } = JSON.parse(result) as { interfaces: { sandbox?: string }[] };
    assert.is(interfaces[2]?.sandbox, '/run/netns/pod');
    const later = { ...BRIDGE, prevResult: JSON.parse(result) as object };
    assert.equal(call('bridge', 'CHECK', later), [0, '', '']);
    assert.equal(call('bridge', 'DEL', later), [0, '', '']);
    assert.equal(
      readdirSync('/run/leases/net1').filter((name) => name.startsWith('10.')),
      [],
    );
    const lines = (await agent.calls('bridge')).map((line) => line.replace(/[\d.]+ms/, 'ms'));
    assert.equal(
      lines,
      ['ADD', 'CHECK', 'DEL'].map((verb) => `${verb} bridge network=net1 container=c1 ms ok`),
    );
  });

  test('a namespace can be unmounted as soon as a call has ended', async () => {
    agent = await NodeAgent.start();
    for (let round = 0; round < 20; round++) {
      sh('ip netns add short');
      assert.equal(call('loopback', 'DEL', LOOPBACK, { netns: '/run/netns/short' }), [0, '', '']);
      sh('umount /run/netns/short');
      rmSync('/run/netns/short');
    }
  });

  test('the log has errors with their text, and no values of CNI_ARGS', async () => {
    agent = await NodeAgent.start(['--log-level', 'error']);
    const env = { CNI_ARGS: 'IgnoreUnknown=1;TOKEN=secret' };
    call('loopback', 'ADD', LOOPBACK, { env });
    call('bridge', 'ADD', { ...BRIDGE, mtu: 'x' }, { env });
    const [line, ...others] = await agent.calls('bridge');
    assert.match(line ?? '', /^ADD bridge network=net1 container=c1 [\d.]+ms error 7: .*"mtu"/);
    assert.equal(others, []);
    assert.not.match(agent.log, /secret|loopback/);
  });

  test('another IPAM plugin: the agent declines before anything changes, and the call succeeds', async () => {
    agent = await NodeAgent.start();
    mkdirSync('/run/ipam', { recursive: true });
    const answer = JSON.stringify({ cniVersion: '1.0.0', ips: [{ address: '10.95.0.9/24' }] });
    const script = `#!/bin/sh\n[ "$CNI_COMMAND" != ADD ] || echo '${answer}'\necho "$OTHER" >>/run/ipam/log\n`;
    writeFileSync('/run/ipam/mine', script, { mode: 0o755 });
    const config = { ...BRIDGE, ipam: { type: 'mine' } };
    const options = { path: `/run/ipam:${LAUNCHERS}`, env: { OTHER: 'passed on' } };
    const [status, stdout] = call('bridge', 'ADD', config, options);
    assert.is(status, 0, stdout);
    assert.match(stdout, '10.95.0.9/24');
    assert.is(call('bridge', 'DEL', config, options)[0], 0);
    assert.match(readFileSync('/run/ipam/log', 'utf8'), /^(passed on\n)+$/);
    for (const line of await agent.calls('bridge')) assert.match(line, 'declined');
  });

  test('host-local of another build is another IPAM plugin', async () => {
    agent = await NodeAgent.start();
    rmSync('/run/copies', { recursive: true, force: true });
    mkdirSync('/run/copies');
    // A copy of the executable: another file.
    copyFileSync(WEFT, '/run/copies/host-local');
    assert.is(call('bridge', 'ADD', BRIDGE, { path: '/run/copies' })[0], 0);
    assert.is(call('bridge', 'DEL', BRIDGE, { path: '/run/copies' })[0], 0);
    rmSync('/run/copies', { recursive: true });
    for (const line of await agent.calls('bridge')) assert.match(line, 'declined');
  });

  test('a caller in another mount namespace: its path counts, and messages show it', async () => {
    agent = await NodeAgent.start();
    sh('ip netns add decoy');
    mkdirSync('/run/here', { recursive: true });
    // In the agent's mount namespace the path is a file; in the caller's, the container's namespace.
    writeFileSync('/run/here/netns', '');
    const script = 'mount --bind /run/netns/pod /run/here/netns && exec "$0"';
    const prefix = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script];
    const [status, stdout] = call('bridge', 'ADD', BRIDGE, { netns: '/run/here/netns', prefix });
    assert.is(status, 0, stdout);
    assert.match(stdout, '"sandbox": "/run/here/netns"');
    assert.match(execFileSync('ip', ['-n', 'pod', 'link'], { encoding: 'utf8' }), 'eth0');
    const later = { ...BRIDGE, prevResult: JSON.parse(stdout) as object };
    assert.equal(call('bridge', 'CHECK', later, { netns: '/run/here/netns', prefix }), [0, '', '']);
    assert.equal(call('bridge', 'DEL', later, { netns: '/run/here/netns', prefix }), [0, '', '']);
    for (const line of await agent.calls('bridge')) assert.match(line, / ok$/);
    sh('ip netns del decoy');
  });

  test('a caller in another network namespace is not served', async () => {
    agent = await NodeAgent.start();
    sh('ip netns add elsewhere');
    const prefix = ['ip', 'netns', 'exec', 'elsewhere'];
    const [status, stdout] = call('bridge', 'ADD', BRIDGE, { prefix });
    assert.is(status, 0, stdout);
    assert.match(execFileSync('ip', ['-n', 'elsewhere', 'link'], { encoding: 'utf8' }), 'agent0');
    assert.not.match(execFileSync('ip', ['link'], { encoding: 'utf8' }), 'agent0');
    assert.is(call('bridge', 'DEL', BRIDGE, { prefix })[0], 0);
    for (const line of await agent.calls('bridge')) assert.match(line, 'declined');
    sh('ip netns del elsewhere');
  });

  test('iptables that is switched between two calls is found again', async () => {
    agent = await NodeAgent.start();
    rmSync('/run/variant', { recursive: true, force: true });
    const rules = (variant: string): string => execFileSync(`iptables-${variant}-save`, { encoding: 'utf8' });
    for (const variant of ['nft', 'legacy', 'nft'] as const) {
      rmSync('/run/variant', { recursive: true, force: true });
      mkdirSync('/run/variant');
      for (const family of ['iptables', 'ip6tables'])
        for (const program of ['', '-save', '-restore'])
          symlinkSync(`/usr/sbin/${family}-${variant}${program}`, `/run/variant/${family}${program}`);
      const env = { PATH: `/run/variant:${PATH}` };
      const [status, stdout] = call('bridge', 'ADD', BRIDGE, { env });
      assert.is(status, 0, stdout);
      assert.match(rules(variant), 'id: \\"c1\\"', variant);
      assert.is(call('bridge', 'DEL', BRIDGE, { env })[0], 0);
      assert.not.match(rules(variant), 'id: \\"c1\\"', variant);
    }
    for (const line of await agent.calls('bridge')) assert.match(line, / ok$/);
  });

  test('another agent takes over, and the first one ends', async () => {
    agent = await NodeAgent.start();
    const second = await NodeAgent.start();
    const deadline = Date.now() + 10_000;
    while (agent.process.exitCode === null && Date.now() < deadline)
      await new Promise((resolve) => setTimeout(resolve, 20));
    assert.is(agent.process.exitCode, 0);
    assert.match(agent.log, 'belongs to another agent now');
    assert.is(call('loopback', 'ADD', LOOPBACK)[0], 0);
    assert.is((await second.calls('loopback')).length, 1);
    assert.is(await second.stop(), 0);
    assert.not(existsSync(SOCKET));
  });

  test('it serves with the capabilities and limits of its systemd unit', async () => {
    const unit = readFileSync(
      new URL('../../../packaging/systemd/weft-agent.service', import.meta.url),
      'utf8',
    );
    const capabilities = (/^CapabilityBoundingSet=(.*)$/m.exec(unit)?.[1] ?? '')
      .split(' ')
      .map((name) => `+${name.replace('CAP_', '').toLowerCase()}`);
    const script = '/run/limited-weft';
    writeFileSync(
      script,
      `#!/bin/sh\nexec setpriv --bounding-set=-all,${capabilities.join(',')} --inh-caps=-all --no-new-privs ${WEFT} "$@"\n`,
    );
    chmodSync(script, 0o755);
    agent = await NodeAgent.start([], script);
    const [status, stdout] = call('bridge', 'ADD', BRIDGE);
    assert.is(status, 0, stdout);
    const prevResult = JSON.parse(stdout) as object;
    const portmap = {
      ...{ cniVersion: '1.0.0', name: 'net1', type: 'portmap', prevResult },
      runtimeConfig: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
    };
    assert.is(call('portmap', 'ADD', portmap)[0], 0);
    assert.is(call('portmap', 'DEL', portmap)[0], 0);
    assert.is(call('bridge', 'DEL', { ...BRIDGE, prevResult })[0], 0);
    const lines = [...(await agent.calls('bridge')), ...(await agent.calls('portmap'))];
    assert.is(lines.length, 4);
    for (const line of lines) assert.match(line, / ok$/);
  });

  test('it warms up without a trace on the host, and says so', async () => {
    const state = (): string =>
      ['ip -o link', 'ip netns', 'nft list ruleset', 'find /run/weft /run/cni /var/lib/cni /etc/netns']
        .map((line) => spawnSync('sh', ['-c', `${line} 2>/dev/null`], { encoding: 'utf8' }).stdout)
        .join('');
    agent = await NodeAgent.start();
    const before = state();
    const warm = await NodeAgent.start(['--warm-up', '2']);
    assert.match(warm.log, /warmed up by 2 chains, the first in \d+ ms, the last in \d+ ms/);
    assert.is(state(), before);
    await warm.stop();
  });
}

test.run();
