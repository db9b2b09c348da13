import { mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { PLUGINS, type PluginEntry } from '../plugins/index.ts';
import { withoutMarks } from '../shared/cni/call-marks.ts';
import { inScratchNamespace, openOwnNamespace } from '../shared/kernel/namespace.ts';
import { runCall, type LoadedPlugins } from './call.ts';

/** An agent that is restarted must not be away for long. */
const LIMIT_MS = 5_000;

/**
 * Runs ADD, CHECK and DEL of all plugins in network namespaces that end afterwards, with leases in a folder that is removed: V8 compiles a
 * function only after it has run often enough. Nothing of the host is changed.
 * @returns what it did, for the log
 * @throws what a plugin reports, on a host where it cannot work
 */
export function warmUp(plugins: LoadedPlugins, rounds: number): string {
  if (rounds === 0) return 'not warmed up';
  mkdirSync('/run/weft', { recursive: true, mode: 0o700 });
  const folder = mkdtempSync('/run/weft/warm-up-');
  try {
    symlinkSync('/proc/self/exe', `${folder}/host-local`);
    const times: number[] = [];
    const end = milliseconds() + LIMIT_MS;
    inScratchNamespace(() => {
      while (times.length < rounds && milliseconds() < end) {
        const began = milliseconds();
        withoutMarks(() => runChain(plugins, folder));
        times.push(milliseconds() - began);
      }
    });
    const shown = [times[0] ?? 0, times.at(-1) ?? 0].map((time) => `${time.toFixed(0)} ms`);
    return `warmed up by ${times.length} chains, the first in ${shown.join(', the last in ')}`;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

type Verb = 'ADD' | 'CHECK' | 'DEL';

/** host-local runs as part of bridge. */
const CHAIN: readonly PluginEntry[] = PLUGINS.filter(({ name }) => name !== 'host-local');

/** One container's life, in the network namespace that the thread is in. */
function runChain(plugins: LoadedPlugins, folder: string): void {
  using container = inScratchNamespace(openOwnNamespace);
  let result: unknown;
  const call = (verb: Verb, entry: PluginEntry): void => {
    const stdout = runOne(plugins, { verb, entry, folder, prevResult: result, netns: container.fd });
    if (verb === 'ADD') result = JSON.parse(stdout);
  };
  for (const entry of CHAIN) call('ADD', entry);
  for (const entry of CHAIN) call('CHECK', entry);
  for (const entry of CHAIN.toReversed()) call('DEL', entry);
}

interface WarmUpCall {
  readonly verb: Verb;
  readonly entry: PluginEntry;
  readonly folder: string;
  readonly prevResult: unknown;
  readonly netns: number;
}

function runOne(plugins: LoadedPlugins, { verb, entry, folder, prevResult, netns }: WarmUpCall): string {
  const { config, args = '' } = entry.example;
  const ipam = config['ipam'];
  const environment = {
    PATH: process.env['PATH'] ?? '',
    CNI_COMMAND: verb,
    CNI_CONTAINERID: 'weft-warm-up',
    CNI_NETNS: `${folder}/netns`,
    CNI_IFNAME: 'eth0',
    CNI_PATH: folder,
    CNI_ARGS: verb === 'DEL' ? '' : args,
  };
  const stdin = JSON.stringify({
    ...config,
    ...(ipam !== undefined && { ipam: { ...(ipam as object), dataDir: folder } }),
    ...(prevResult !== undefined && { prevResult }),
    cniVersion: '1.0.0',
    name: 'weft-warm-up',
    type: entry.name,
  });
  let stdout = '';
  const identity = statSync('/proc/self/exe', { bigint: true });
  const request = { plugin: entry.name, environment, stdin, netns: identity, launcher: identity };
  const outcome = runCall(plugins, request, netns, {
    writeOut: (text) => (stdout += text),
    writeErr: () => undefined,
  });
  if (outcome !== 0) throw new Error(`${entry.name} ${verb}: ${stdout}`);
  return stdout;
}

/** Monotonic. */
function milliseconds(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
