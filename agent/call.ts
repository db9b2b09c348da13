import { configurationOfAdd } from '../shared/attachments/cached-results.ts';
import { PLUGIN_NAMES, pluginNamed } from '../plugins/index.ts';
import { NeedsOwnProcess, type Plugin } from '../shared/cni/plugin.ts';
import { runPlugin } from '../shared/cni/protocol.ts';
import { isOwnNamespace, withOpenedNamespace } from '../shared/kernel/namespace.ts';
import { stdinTooLarge } from '../shared/kernel/stdio.ts';
import type { Request } from './wire.ts';

/** Where a call's output goes. Both throw when it cannot be delivered. */
export interface CallOutput {
  readonly writeOut: (text: string) => void;
  readonly writeErr: (text: string) => void;
  /** The call's time has started again, because it waits for a lock that other calls hand on. */
  readonly onQueued?: () => void;
  /** For the log: called once the configuration could be read. */
  readonly onNetwork?: (name: string) => void;
}

/** By every name under which a runtime may call one. */
export type LoadedPlugins = ReadonlyMap<string, Plugin<unknown>>;

export async function loadPlugins(): Promise<LoadedPlugins> {
  const loaded = PLUGIN_NAMES.map(
    async (name) => [name, { ...(await pluginNamed(name)?.load()), name }] as const,
  );
  return new Map(await Promise.all(loaded)) as LoadedPlugins;
}

/**
 * Runs one plugin call in this process, as the executable would.
 * @param netns descriptor of the caller's CNI_NETNS, if the call has one
 * @returns the exit code; `declined` when the call needs a process of its own, and nothing was changed
 */
export function runCall(
  plugins: LoadedPlugins,
  request: Request,
  netns: number | undefined,
  output: CallOutput,
): number | 'declined' {
  const { environment, launcher } = request;
  const plugin = plugins.get(request.plugin);
  // The executable reports a name that it does not know.
  if (plugin === undefined) return 'declined';
  useEnvironment(environment);
  const run = (): number =>
    runPlugin(plugin, {
      environment,
      readStdin: (limitMib) => withinLimit(request.stdin, limitMib),
      isOwnNamespace,
      configurationOfAdd,
      origin: { launcher, inAgent: true },
      ...output,
    });
  try {
    return netns === undefined ? run() : withOpenedNamespace(environment['CNI_NETNS'] ?? '', netns, run);
  } catch (thrown) {
    if (thrown instanceof NeedsOwnProcess) return 'declined';
    throw thrown;
  }
}

/** What plugins and the programs that they start read from the process's own environment. */
const OF_PROCESS = ['PATH', 'XTABLES_LOCKFILE'];

function useEnvironment(environment: Request['environment']): void {
  for (const name of OF_PROCESS) {
    const value = environment[name];
    if (value === undefined) Reflect.deleteProperty(process.env, name);
    else process.env[name] = value;
  }
}

function withinLimit(text: string, limitMib: number): string {
  if (text.length * 3 <= limitMib * 2 ** 20 || Buffer.byteLength(text) <= limitMib * 2 ** 20) return text;
  throw stdinTooLarge(limitMib);
}
