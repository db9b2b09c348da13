import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { PLUGIN_NAMES, type PluginName } from '../support/executables.ts';
import { errorOf, runPluginProcess, variables, type ProcessOutcome } from '../support/plugin.ts';
import { suite } from '../support/suite.ts';
import { CASES, previousResult } from './cases.ts';
import { assertShape } from './shapes.ts';

/** Checklist A, second half: calls that succeed, in every version, and what they may print. */
const test = suite('conformance: answers', { limit: 120 });

const NS = '/run/netns/pod';
/** The host's own namespace under another name, as a runtime with host networking would pass it. */
const OWN = '/run/netns/own';

test.before(() => {
  execFileSync('sh', ['-c', `mkdir -p /run/netns && touch ${OWN} && mount --bind /proc/self/ns/net ${OWN}`]);
});
test.beforeEach(() => {
  execFileSync('sh', ['-c', 'ip netns del pod 2>/dev/null; ip netns add pod && ip -n pod link set lo up']);
});

interface Options {
  readonly netns?: string;
  readonly args?: string;
  readonly override?: string;
  readonly more?: object;
}

function call(name: PluginName, command: string, cniVersion: string, options: Options = {}): ProcessOutcome {
  const { config, chained, args: own } = CASES[name];
  const { netns = NS, args = command === 'DEL' ? '' : (own ?? ''), override } = options;
  const env = variables({ id: 'c1', netns, args });
  const previous = chained && command !== 'STATUS' && command !== 'GC';
  return runPluginProcess(name, {
    command,
    env: override === undefined ? env : { ...env, CNI_NETNS_OVERRIDE: override },
    stdin: {
      cniVersion,
      name: 'conformance',
      type: name,
      ...config,
      ...(previous ? { prevResult: previousResult(cniVersion, NS) } : {}),
      ...options.more,
    },
  });
}

function silent(outcome: ProcessOutcome, what: string): void {
  assert.equal(outcome, { exitCode: 0, stdout: '', stderr: '' }, what);
}

const hasCheck = (version: string): boolean => !/^0\.[123]/.test(version);

for (const name of PLUGIN_NAMES) {
  for (const version of CNI_VERSIONS) {
    test(`${name}: ADD, CHECK, ADD again, DEL, DEL again with ${version}`, () => {
      const first = call(name, 'ADD', version);
      assert.equal([first.exitCode, first.stderr], [0, ''], first.stdout);
      const document = assertShape(version, first.stdout);
      if (CASES[name].chained) assertEchoed(name, version, document);
      if (hasCheck(version))
        silent(call(name, 'CHECK', version, { more: { prevResult: document } }), 'CHECK');
      const second = call(name, 'ADD', version);
      assert.equal([second.exitCode, second.stderr], [0, ''], second.stdout);
      assert.equal(
        addresses(assertShape(version, second.stdout)),
        addresses(document),
        'the same addresses again',
      );
      silent(call(name, 'DEL', version, { more: { prevResult: document } }), 'DEL');
      silent(call(name, 'DEL', version), 'DEL again');
    });
  }

  test(`${name}: DEL of what was never added, without prevResult, arguments or namespace`, () => {
    for (const netns of ['', '/run/netns/none', NS]) {
      silent(call(name, 'DEL', '0.4.0', { netns, more: { prevResult: undefined } }), `CNI_NETNS=${netns}`);
    }
  });

  test(`${name}: STATUS and GC print nothing; keys in any case`, () => {
    silent(call(name, 'STATUS', '1.1.0'), 'STATUS');
    silent(call(name, 'GC', '1.1.0', { more: { 'cni.dev/valid-attachments': [] } }), 'GC');
    silent(
      call(name, 'GC', '1.1.0', { more: { 'cni.dev/attachments': [{ containerID: 'a', ifname: 'b' }] } }),
      'GC',
    );
    const shouted = { CNIVERSION: '1.1.0', NAME: 'conformance', ...CASES[name].config };
    silent(
      runPluginProcess(name, { command: 'STATUS', env: variables({ id: '' }), stdin: shouted }),
      'shouted',
    );
  });

  test(`${name}: GC with a list that cannot be read is refused`, () => {
    const more = { 'cni.dev/valid-attachments': [{ containerID: 'a' }] };
    assert.is(errorOf(call(name, 'GC', '1.1.0', { more })).code, 7);
  });

  test(`${name}: its own namespace is refused before any work, in one document`, () => {
    for (const command of ['ADD', 'DEL']) {
      const error = errorOf(call(name, command, '0.4.0', { netns: OWN }));
      assert.equal([error.code, error.cniVersion], [8, '0.4.0']);
      assert.is(error.msg, "plugin's netns and netns from CNI_NETNS should not be the same");
    }
    assert.not(execFileSync('ip', ['-o', 'link'], { encoding: 'utf8' }).includes('eth0'));
  });

  test(`${name}: CNI_NETNS_OVERRIDE allows it`, () => {
    for (const override of ['1', 'true', 'TRUE']) {
      const { exitCode, stdout } = call(name, 'DEL', '0.4.0', { netns: OWN, override });
      // consul-tproxy warns: the namespace has the host's address and none of this container's.
      assert.equal([exitCode, stdout], [0, ''], override);
    }
  });

  if (CASES[name].readsArgs) {
    test(`${name}: CNI_ARGS are judged`, () => {
      const own = CASES[name].args?.replace('IgnoreUnknown=true', '') ?? '';
      const add = (args: string): ProcessOutcome => call(name, 'ADD', '1.0.0', { args });
      assert.match(errorOf(add(`${own};none`)).msg, 'ARGS: invalid pair "none"');
      assert.match(errorOf(add(`${own};FOO=1`)).msg, 'ARGS: unknown args ["FOO=1"]');
      const good = add(`${own};FOO=1;IgnoreUnknown=1;K8S_POD_NAME=x;;`);
      assert.is(good.exitCode, 0, good.stdout);
      silent(call(name, 'DEL', '1.0.0'), 'DEL');
    });
  } else {
    test(`${name}: CNI_ARGS are not looked at`, () => {
      const outcome = call(name, 'ADD', '1.0.0', { args: 'none' });
      assert.is(outcome.exitCode, 0, outcome.stdout);
      silent(call(name, 'DEL', '1.0.0', { args: 'none' }), 'DEL');
    });
  }
}

function addresses(document: Record<string, unknown>): unknown {
  if (!('ips' in document)) return [document['ip4'], document['ip6']];
  return (document['ips'] as { address: string }[]).map(({ address }) => address);
}

/** A20, A22: all that the specification of the version knows comes through; consul-tproxy puts Consul's DNS in front. */
function assertEchoed(name: PluginName, version: string, document: Record<string, unknown>): void {
  const expected: Record<string, unknown> = { ...previousResult(version, NS) };
  const received = { ...document };
  if (name.startsWith('consul')) {
    assert.equal((received['dns'] as { nameservers: string[] }).nameservers, ['192.0.2.1']);
    delete received['dns'];
    delete expected['dns'];
  }
  assert.equal(received, expected);
}

test.run();
