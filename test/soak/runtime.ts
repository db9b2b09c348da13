import { joinArgs, pluginInput, type Attachment } from '../../conflist/attachment.ts';
import type { ListedPlugin, NetworkList } from '../../conflist/network-list.ts';
import { parseResult, type CniResult } from '../../shared/cni/results.ts';
import type { PluginName } from '../support/executables.ts';
import { startMixed } from '../support/mixed-calls.ts';
import { variables } from '../support/plugin.ts';

export type Verb = 'ADD' | 'CHECK' | 'DEL' | 'GC';

/** One verb for a whole list, as libcni calls it, but without waiting: conflist/runtime.ts does one call after the other. */
export interface ChainCall {
  readonly verb: Verb;
  readonly list: NetworkList;
  readonly attachment: Attachment;
  /** Of the last ADD, for CHECK and DEL. */
  readonly prevResult?: CniResult | undefined;
  readonly path: string;
  /** A change to what the plugin reads on stdin. */
  readonly edit?: ((config: Record<string, unknown>) => void) | undefined;
  /** Further keys of stdin, for GC. */
  readonly keys?: Readonly<Record<string, unknown>>;
}

/** What a plugin of the chain reported instead of succeeding. */
export class ChainFailure extends Error {
  readonly plugin: string;
  readonly code: number;

  constructor(plugin: string, verb: Verb, code: number, text: string) {
    super(`${plugin} ${verb}: ${text}`);
    this.plugin = plugin;
    this.code = code;
  }
}

/** @returns the last result of ADD, and everything on stderr. Rejects with the first plugin's ChainFailure. */
export async function runChain(call: ChainCall): Promise<{ result: CniResult | undefined; stderr: string }> {
  const { verb, list } = call;
  let result = verb === 'ADD' || verb === 'GC' ? undefined : call.prevResult;
  let log = '';
  for (const plugin of verb === 'DEL' ? list.plugins.toReversed() : list.plugins) {
    const { stdout, stderr } = await runOne(call, plugin, result);
    log += stderr;
    if (verb === 'ADD') result = parseResult(list.cniVersion, JSON.parse(stdout));
  }
  return { result, stderr: log };
}

let calls = 0;
/** About 250 calls of the plain executable in 20,000 operations; the short run of `npm test` has one or two. */
const PLAIN_EVERY = 400;

async function runOne(
  call: ChainCall,
  plugin: ListedPlugin,
  prevResult: CniResult | undefined,
): Promise<{ stdout: string; stderr: string }> {
  const { verb, attachment, path, keys = {} } = call;
  const { containerId, netns, ifname, args, capabilityArgs } = attachment;
  const input = JSON.parse(pluginInput(call.list, plugin, { prevResult, capabilityArgs, keys })) as Record<
    string,
    unknown
  >;
  call.edit?.(input);
  // The lists are of version 0.4.0, which has no GC.
  if (verb === 'GC') input['cniVersion'] = '1.1.0';
  const ids = verb === 'GC' ? {} : { ...variables({ id: containerId, netns, ifname, args: joinArgs(args) }) };
  const env = { ...variables({ id: '' }), ...ids, PATH: path };
  const process = { command: verb, env, stdin: input, patience: 60_000 };
  const outcome = await startMixed((calls += 1), plugin.type as PluginName, process, PLAIN_EVERY);
  const { exitCode, stdout, stderr } = outcome;
  if (exitCode === 0) return { stdout, stderr };
  let code = -1;
  try {
    ({ code } = JSON.parse(stdout) as { code: number });
  } catch {
    // Not an error document: the text says what it was.
  }
  throw new ChainFailure(plugin.type, verb, code, `exit code ${exitCode}: ${stdout}${stderr}`);
}
