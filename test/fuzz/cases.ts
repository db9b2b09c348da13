import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { PLUGIN_NAMES, type PluginName } from '../../plugins/index.ts';
import { CASES, previousResult } from '../conformance/cases.ts';
import { variables } from '../support/plugin.ts';
import type { Random } from '../support/random.ts';
import { hostileFiles, type HostileFile } from './files.ts';
import { corrupt, mutate } from './mutate.ts';

/** One call of a plugin, and what lies on the host at the time. */
export interface Case {
  readonly plugin: PluginName;
  readonly environment: Readonly<Record<string, string>>;
  readonly stdin: string;
  readonly files: readonly HostileFile[];
}

export const NS = '/run/netns/pod';
export const NETWORK = 'fuzz';

const COMMANDS = ['ADD', 'ADD', 'DEL', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION', 'FOO'];

/** @param path the directory of CNI_PATH */
export function makeCase(random: Random, path: string, plugin: PluginName = random.pick(PLUGIN_NAMES)): Case {
  const { args = '' } = CASES[plugin];
  const text = JSON.stringify(makeDocument(random, plugin));
  const environment: Record<string, string> = {
    ...variables({ id: 'c1', netns: NS, args: mutatedArgs(random, args), path }),
    CNI_COMMAND: random.pick(COMMANDS),
  };
  for (let left = random.chance(0.3) ? 1 + random.below(2) : 0; left > 0; left -= 1)
    environment[random.pick(VARIABLES)] = random.pick(VALUES);
  return {
    plugin,
    environment,
    stdin: random.chance(0.15) ? corrupt(random, text) : text,
    files: random.chance(0.35) ? hostileFiles(random) : [],
  };
}

/** Without the locale's: V8 crashes on long ones before any code of ours runs (docs/internals/packaging.md). */
const VARIABLES = [
  ...Object.keys(variables({ id: '' })),
  ...['CNI_COMMAND', 'PATH', 'HOME', 'NODE_OPTIONS', 'WEFT_DEBUG', 'CNI_NETNS_OVERRIDE'],
];

const VALUES = [
  '',
  '0',
  '1',
  'true',
  '..',
  'a b',
  'ä',
  '/',
  '/etc/passwd',
  '/run',
  '/run/netns/foreign',
  '/run/netns/none',
  '/proc/self/ns/mnt',
  '/proc/self/fd/0',
  '/dev/zero',
  'lo',
  'c2',
  'foreign',
  ';=;==',
  'IgnoreUnknown=1;IP=10.0.0.1;K=\n',
  'x'.repeat(300),
  'x'.repeat(100_000),
  '\u2028',
  'a\nb',
  '\u001b[31m',
  '--inspect',
];

function makeDocument(random: Random, plugin: PluginName): unknown {
  const { config } = CASES[plugin];
  const cniVersion = random.pick([...CNI_VERSIONS, '1.1.0', '1.1.0']);
  const envelope = {
    cniVersion,
    name: NETWORK,
    type: plugin,
    ...(random.chance(0.8) ? { prevResult: previousResult(cniVersion, NS) } : {}),
    ...(random.chance(0.3) ? { 'cni.dev/valid-attachments': [{ containerID: 'c1', ifname: 'eth0' }] } : {}),
  };
  // The plugin's own keys mostly: what surrounds them is rejected before the plugin sees them.
  const own = mutated(random, config, random.below(4));
  const merged: unknown = typeof own === 'object' ? { ...envelope, ...own } : own;
  return random.chance(0.25) ? mutated(random, merged, 1 + random.below(2)) : merged;
}

/** consul-tproxy's configuration is JSON inside of CNI_ARGS. */
function mutatedArgs(random: Random, args: string): string {
  const changed = args.replace(/\{.*\}/, (json) =>
    JSON.stringify(mutated(random, JSON.parse(json), random.below(3))),
  );
  return args !== '' && random.chance(0.2) ? corrupt(random, changed) : changed;
}

export function mutated(random: Random, value: unknown, times: number): unknown {
  return times === 0 ? value : mutated(random, mutate(random, value), times - 1);
}
