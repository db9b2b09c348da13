import * as assert from 'uvu/assert';
import { SUITE_VERSION, CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { PLUGIN_NAMES, type PluginName } from '../support/executables.ts';
import { errorOf, runPluginProcess, variables, type ProcessCall } from '../support/plugin.ts';
import { suite } from '../support/suite.ts';
import { CASES } from './cases.ts';
import { assertUntouched, hostState } from '../support/host-state.ts';

/**
 * Checklist A, first half: every executable, every way of calling it wrongly, and the calls that do nothing.
 * The namespace named is real, so whatever a plugin did before refusing would show in the host's state afterwards.
 */
const test = suite('conformance: refusals', { limit: 120 });

const FULL = variables({ id: 'c1', netns: '/proc/1/ns/mnt' });
const network = (members: object = {}): object => ({ cniVersion: '1.1.0', name: 'n', ...members });

interface Row {
  readonly id: string;
  readonly call: ProcessCall;
  readonly code: number;
  readonly msg: string | RegExp;
  readonly details?: string;
}

const MISSING: Readonly<Record<string, string>> = {
  ADD: 'CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH',
  DEL: 'CNI_CONTAINERID,CNI_IFNAME,CNI_PATH',
  CHECK: 'CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH',
  GC: 'CNI_PATH',
  STATUS: 'CNI_PATH',
};
const VERBS = Object.keys(MISSING);

const IFNAME_RULES: readonly [string, string, string?][] = [
  ['sixteen-bytes-xx', 'interface name is too long', 'interface name should be less than 16 characters'],
  ['..', 'interface name is . or ..'],
  ['.', 'interface name is . or ..'],
  ['a/b', 'interface name contains / or : or whitespace characters'],
  ['a:b', 'interface name contains / or : or whitespace characters'],
  ['a b', 'interface name contains / or : or whitespace characters'],
];

const ROWS: readonly Row[] = [
  ...VERBS.map((command) => ({
    id: `A3 A4 ${command} without variables`,
    call: { command, stdin: network() },
    code: 4,
    msg: `required env variables [${MISSING[command]}] missing`,
  })),
  ...['../x', '_a'].map((id) => ({
    id: `A5 container id ${id}, before missing variables`,
    call: { command: 'ADD', env: { CNI_CONTAINERID: id }, stdin: network() },
    code: 4,
    msg: 'invalid characters in containerID',
    details: id,
  })),
  ...IFNAME_RULES.map(([ifname, msg, details = ifname]) => ({
    id: `A6 interface name ${ifname}`,
    call: { command: 'ADD', env: { ...FULL, CNI_IFNAME: ifname }, stdin: network() },
    code: 4,
    msg,
    details,
  })),
  ...[...VERBS, 'FOO'].flatMap((command) =>
    ['', '{"name":', '{"name":"n"} trailing', '[]'].map((stdin) => ({
      id: `A7 ${command} with stdin ${JSON.stringify(stdin)}`,
      call: { command, env: FULL, stdin },
      code: 6,
      msg: /^error unmarshall network config: /,
    })),
  ),
  ...VERBS.map((command) => ({
    id: `A8 ${command} without a network name`,
    call: { command, env: FULL, stdin: { cniVersion: '1.1.0' } },
    code: 7,
    msg: 'missing network name',
  })),
  {
    id: 'A8 a bad network name',
    call: { command: 'DEL', env: FULL, stdin: network({ name: '../etc' }) },
    code: 7,
    msg: 'invalid characters found in network name',
    details: '../etc',
  },
  {
    id: 'A9 unknown command',
    call: { command: 'FOO', stdin: network() },
    code: 4,
    msg: 'unknown CNI_COMMAND: FOO',
  },
  ...['ADD', 'DEL'].map((command) => ({
    id: `A10 ${command} with an unsupported version`,
    call: { command, env: FULL, stdin: network({ cniVersion: '9.9.9' }) },
    code: 1,
    msg: 'incompatible CNI versions',
    details: `config is "9.9.9", plugin supports [${CNI_VERSIONS.map((one) => `"${one}"`).join(' ')}]`,
  })),
  {
    id: 'A11 no version is an old one',
    call: { command: 'CHECK', env: FULL, stdin: { name: 'n' } },
    code: 1,
    msg: 'config version does not allow CHECK',
  },
  {
    id: 'A11 a version that is no string',
    call: { command: 'ADD', env: FULL, stdin: network({ cniVersion: 1 }) },
    code: 6,
    msg: 'decoding version from network config: "cniVersion" must be a string, got 1 (number)',
  },
  ...['CHECK', 'GC', 'STATUS'].flatMap((command) => [
    {
      id: `A12 ${command} with a version that is too old`,
      call: { command, env: FULL, stdin: network({ cniVersion: command === 'CHECK' ? '0.3.1' : '1.0.0' }) },
      code: 1,
      msg: `config version does not allow ${command}`,
    },
    {
      id: `A13 ${command} with a version that is too new`,
      call: { command, env: FULL, stdin: network({ cniVersion: '1.1.1' }) },
      code: 1,
      msg: `plugin version does not allow ${command}`,
    },
  ]),
  ...['ADD', 'CHECK'].map((command) => ({
    id: `A21 ${command} with a prevResult of another class`,
    call: { command, env: FULL, stdin: network({ prevResult: { cniVersion: '0.4.0' } }) },
    code: 6,
    msg: 'prevResult has cniVersion "0.4.0", which cannot be read as version 1.1.0',
  })),
];

for (const name of PLUGIN_NAMES) {
  let before: ReturnType<typeof hostState> | undefined;

  test(`${name}: the state before`, () => void (before = hostState()));

  for (const { id, call, code, msg, details } of ROWS) {
    test(`${name}: ${id}`, () => {
      const error = errorOf(runPluginProcess(name, call));
      assert.is(error.code, code);
      if (typeof msg === 'string') assert.is(error.msg, msg);
      else assert.match(error.msg, msg);
      if (details !== undefined) assert.is(error.details, details);
    });
  }

  const { wrong, args = '' } = CASES[name];
  if (wrong !== undefined) {
    for (const command of ['ADD', 'STATUS']) {
      test(`${name}: ${command} with a wrong value names the key, in whatever case it came (A14)`, () => {
        for (const config of [wrong.config, upperCased(wrong.config)]) {
          const error = errorOf(
            runPluginProcess(name, {
              command,
              env: { ...FULL, CNI_ARGS: args },
              stdin: network(config as object),
            }),
          );
          // STATUS may also say that the plugin is of no use like this.
          assert.ok(error.code === 7 || (command === 'STATUS' && error.code === 50), error.msg);
          assert.match(error.msg, wrong.key);
        }
      });
    }
  }

  test(`${name}: no CNI_COMMAND prints the version and exits 0, whatever the arguments`, () =>
    answersVersion(name));

  test(`${name}: VERSION`, () => {
    const outcome = runPluginProcess(name, { command: 'VERSION', env: { CNI_CONTAINERID: '../x' } });
    const supported = CNI_VERSIONS.map((one) => `"${one}"`).join(',');
    assert.equal(outcome, {
      exitCode: 0,
      stdout: `{"cniVersion":"1.1.0","supportedVersions":[${supported}]}\n`,
      stderr: '',
    });
  });

  test(`${name}: the host is as it was`, () => {
    assert.ok(before);
    assertUntouched(before, name);
  });
}

function answersVersion(name: PluginName): void {
  const expected = {
    exitCode: 0,
    stdout: '',
    stderr: `CNI ${name} plugin v${SUITE_VERSION}\nCNI protocol versions supported: ${CNI_VERSIONS.join(', ')}\n`,
  };
  for (const argv of [[], ['--version'], ['--help'], ['ADD']]) {
    assert.equal(runPluginProcess(name, { argv }), expected);
  }
  assert.equal(
    runPluginProcess(name, { env: { CNI_COMMAND: '', CNI_NETNS: '/x' }, stdin: 'broken' }),
    expected,
  );
}

function upperCased(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(upperCased);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, member]) => [key.toUpperCase(), upperCased(member)]),
  );
}

test.run();
