import { spawnSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { executable, type PluginName } from '../support/executables.ts';
import { errorOf, variables } from '../support/plugin.ts';
import { suite } from '../support/suite.ts';
import { CASES } from './cases.ts';

/** What each plugin may do: capabilities, and in a user namespace. */
const test = suite('conformance: privileges', { limit: 60 });
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

function run(file: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(file, args, { encoding: 'utf8' });
  assert.is(status, 0, stderr);
  return stdout;
}

test.run();
