import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { executable, type PluginName } from '../support/executables.ts';
import { errorOf, variables } from '../support/plugin.ts';
import { suite } from '../support/suite.ts';
import { CASES } from './cases.ts';

/** Calls of the executables that something on the host stands in the way of: each ends in bounded time, with a clear error. */
const test = suite('obstructions', { limit: 60 });
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';
const NETNS = '/run/netns/blocked';

const RESULT = {
  cniVersion: '1.0.0',
  interfaces: [{ name: 'eth0', sandbox: NETNS }],
  ips: [{ address: '10.99.0.2/24', interface: 0 }],
};
const CONFIGS: Partial<Record<PluginName, object>> = {
  loopback: {},
  bridge: { bridge: 'br-blocked', isGateway: true, ipam: { type: 'host-local', subnet: '10.99.0.0/24' } },
  'host-local': { ipam: { type: 'host-local', subnet: '10.98.0.0/24' } },
  firewall: { backend: 'iptables', prevResult: RESULT },
  portmap: {
    capabilities: { portMappings: true },
    runtimeConfig: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
    prevResult: RESULT,
  },
  'consul-tproxy': { prevResult: RESULT },
};

test.before(() => void run('ip', 'netns', 'add', 'blocked'));

for (const name of ['LC_ALL', 'LC_MESSAGES', 'LC_CTYPE', 'LANG', 'LANGUAGE']) {
  // A language of more than eleven letters crashes V8 before any code of ours runs (docs/internals/packaging.md); the launcher passes none on.
  test(`an unknown locale or a path in ${name} does no harm`, () => {
    for (const value of [
      '/etc/passwd',
      '../../x',
      'tr_TR.UTF-8',
      'xx_NOWHERE.none',
      `de_DE@${'x'.repeat(100)}`,
    ]) {
      const env = { [name]: value, CNI_COMMAND: 'VERSION' };
      const { status, stdout } = spawnSync(executable('loopback'), { env, encoding: 'utf8', input: '{}' });
      assert.is(status, 0, value.slice(0, 20));
      assert.match(stdout, 'supportedVersions');
    }
  });
}

test('a short result into a full pipe ends the call after ten seconds, and undoes the ADD', () => {
  const { status, stderr } = withFullPipe('loopback', 'ADD', '>&3');
  assert.is(status, 1);
  assert.match(stderr, /cannot report the result: timed out after (9|10)(\.\d)? s writing to stdout/);
  assert.match(run('ip', '-n', 'blocked', 'link', 'show', 'lo'), 'state DOWN');
});

test('a warning into a full pipe is dropped after a second, and the call succeeds', () => {
  const start = Date.now();
  const { status } = withFullPipe('loopback', 'GC', '2>&3');
  assert.is(status, 0);
  assert.ok(Date.now() - start < 8000);
});

test('an unprivileged process that locks the network namespace delays nothing', async () => {
  const holder = spawn(
    'setpriv',
    [
      '--reuid=65534',
      '--clear-groups',
      'flock',
      '--no-fork',
      '/proc/self/ns/net',
      'sh',
      '-c',
      'echo held; exec sleep 60',
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  await once(holder.stdout, 'data');
  const start = Date.now();
  for (const name of ['firewall', 'portmap'] as const) {
    for (const command of ['ADD', 'DEL'])
      assert.is(call(name, command, []).exitCode, 0, `${name} ${command}`);
  }
  holder.kill('SIGKILL');
  assert.ok(Date.now() - start < 8000);
});

/** Each plugin and the capabilities that it needs besides those that access files; documented in troubleshooting.md. */
const NEEDED: readonly (readonly [PluginName, readonly string[]])[] = [
  ['loopback', ['sys_admin', 'net_admin']],
  ['bridge', ['sys_admin', 'net_admin']],
  ['host-local', []],
  ['firewall', ['net_admin', 'net_raw']],
  ['portmap', ['net_admin', 'net_raw']],
  ['consul-tproxy', ['sys_admin', 'net_admin', 'net_raw']],
];

for (const [name, needed] of NEEDED) {
  test(`${name} needs ${needed.join(', ') || 'no capability'}, and names the one that is missing`, () => {
    for (const command of ['ADD', 'DEL']) {
      const outcome = call(name, command, boundedTo(needed));
      assert.is(outcome.exitCode, 0, `${command}: ${outcome.stdout}${outcome.stderr}`);
    }
    for (const missing of needed.filter((capability) => capability !== 'net_raw')) {
      const outcome = call(name, 'ADD', boundedTo(needed.filter((other) => other !== missing)));
      const { code, msg, details = '' } = errorOf(outcome, missing);
      assert.is.not(code, 999, msg);
      assert.match(`${msg} ${details}`, `missing CAP_${missing.toUpperCase()}`);
    }
  });
}

test('plugins work in a user namespace that has its own network namespace', () => {
  const script = `mount -t tmpfs none /run; mkdir -p /run/netns; ip netns add blocked; ip link set lo up; cat > /run/config
    for verb in ADD DEL; do CNI_COMMAND=$verb "$0" < /run/config || exit 1; done`;
  for (const [name] of NEEDED) {
    const outcome = call(name, 'ADD', [
      'unshare',
      '--user',
      '--map-root-user',
      '--net',
      '--mount',
      'sh',
      '-c',
      script,
    ]);
    if (name !== 'consul-tproxy') {
      assert.is(outcome.exitCode, 0, `${name}: ${outcome.stdout}${outcome.stderr}`);
      continue;
    }
    // It matches uid 101, which this user namespace does not map.
    const { code, msg } = errorOf(outcome, name);
    assert.is(code, 7);
    assert.match(msg, "this user namespace does not map the proxy's uid 101");
  }
});

function boundedTo(capabilities: readonly string[]): string[] {
  const set = ['-all', '+dac_override', '+fowner', '+chown', ...capabilities.map((name) => `+${name}`)].join(
    ',',
  );
  return ['setpriv', `--bounding-set=${set}`, `--inh-caps=${set}`, '--'];
}

function call(
  name: PluginName,
  command: string,
  prefix: readonly string[],
): { exitCode: number | null; stdout: string; stderr: string } {
  const [file, ...args] = [...prefix, executable(name)];
  const { status, stdout, stderr } = spawnSync(file, args, {
    env: {
      ...variables({ id: 'blocked', netns: NETNS, args: CASES[name].args ?? '' }),
      CNI_COMMAND: command,
      PATH,
    },
    input: JSON.stringify({ cniVersion: '1.0.0', name: 'blocked', type: name, ...CONFIGS[name] }),
    encoding: 'utf8',
  });
  return { exitCode: status, stdout, stderr };
}

/** Runs a plugin with a pipe that is full and that nothing reads as one of its outputs. */
function withFullPipe(
  name: PluginName,
  command: string,
  redirection: string,
): { status: number | null; stderr: string } {
  writeFileSync('/run/full.json', JSON.stringify({ cniVersion: '1.1.0', name: 'n', type: name }));
  const script = `rm -f /run/full; mkfifo /run/full; exec 3<>/run/full; head -c 65536 /dev/zero >&3; "$0" </run/full.json ${redirection}`;
  return spawnSync('sh', ['-c', script, executable(name)], {
    env: { ...variables({ id: 'blocked', netns: NETNS }), CNI_COMMAND: command, PATH },
    encoding: 'utf8',
  });
}

function run(file: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(file, args, { encoding: 'utf8' });
  assert.is(status, 0, stderr);
  return stdout;
}

test.run();
