/** One chain of plugins, called as libcni calls them; nothing else is timed. */
import { spawnSync } from 'node:child_process';
import { callOf, type Allocation, type Call, type Verb } from './calls.ts';
import { drive, driveBeside } from './driver.ts';
import type { List, PluginSuite } from './suites.ts';

/** Milliseconds of each plugin, in the order of their calls. */
export interface ChainTimes {
  /** Of all plugins. */
  readonly total: number;
  readonly plugins: ReadonlyMap<string, number>;
}

export interface ChainOutcome {
  readonly times: ChainTimes;
  /** Milliseconds of processor of all programs. */
  readonly cpu: number;
  /** The last plugin's result after ADD; what was given, after the others. */
  readonly result: unknown;
}

/** @param prevResult the last ADD's result, for CHECK and DEL @throws Error with the plugin's answer when one fails */
export function runChain(
  suite: PluginSuite,
  list: List,
  verb: Verb,
  allocation: Allocation,
  prevResult?: unknown,
): ChainOutcome {
  const plugins = new Map<string, number>();
  let [total, cpu] = [0, 0];
  const result = inTurn(suite, list, verb, allocation, prevResult, (call) => {
    const driven = drive(call);
    plugins.set(call.plugin, driven.milliseconds);
    total += driven.milliseconds;
    cpu += driven.cpu;
    return driven.stdout;
  });
  return { times: { total, plugins }, cpu, result };
}

/**
 * The same without times.
 * @param wrap a program and its arguments that starts each plugin (strace, time)
 * @returns how many plugins were started, and the result as {@link ChainOutcome.result}
 */
export function runWrapped(
  suite: PluginSuite,
  list: List,
  verb: Verb,
  allocation: Allocation,
  prevResult: unknown,
  wrap: readonly [string, ...string[]],
): { plugins: number; result: unknown } {
  let plugins = 0;
  const result = inTurn(suite, list, verb, allocation, prevResult, (call) => {
    plugins += 1;
    return runSync(call, wrap);
  });
  return { plugins, result };
}

function inTurn(
  suite: PluginSuite,
  list: List,
  verb: Verb,
  allocation: Allocation,
  prevResult: unknown,
  run: (call: Call) => string,
): unknown {
  let result = verb === 'ADD' ? undefined : prevResult;
  for (const plugin of inOrder(list, verb)) {
    const call = callOf(suite, list, plugin, verb, allocation, result);
    if (call === undefined) continue;
    const stdout = run(call);
    if (verb === 'ADD' && stdout !== '') result = JSON.parse(stdout);
  }
  return result;
}

/** The same beside other chains. Rejects with the first plugin's failure. */
export async function startChain(
  suite: PluginSuite,
  list: List,
  verb: Verb,
  allocation: Allocation,
  prevResult?: unknown,
): Promise<Pick<ChainOutcome, 'cpu' | 'result'>> {
  let result = verb === 'ADD' ? undefined : prevResult;
  let cpu = 0;
  for (const plugin of inOrder(list, verb)) {
    const call = callOf(suite, list, plugin, verb, allocation, result);
    if (call === undefined) continue;
    const driven = await driveBeside(call);
    cpu += driven.cpu;
    if (verb === 'ADD' && driven.stdout !== '') result = JSON.parse(driven.stdout);
  }
  return { cpu, result };
}

export function milliseconds(since: bigint): number {
  return Number(process.hrtime.bigint() - since) / 1e6;
}

function inOrder({ plugins }: List, verb: Verb): List['plugins'] {
  return verb === 'DEL' ? plugins.toReversed() : plugins;
}

function runSync({ file, env, input }: Call, [program, ...args]: readonly [string, ...string[]]): string {
  const { status, stdout, stderr, error } = spawnSync(program, [...args, file], {
    input,
    env,
    encoding: 'utf8',
  });
  if (error !== undefined && (error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  if (status !== 0) throw failure(file, env, status, stdout + stderr);
  return stdout;
}

function failure(file: string, env: Call['env'], status: number | null, text: string): Error {
  return new Error(`${file} ${env['CNI_COMMAND'] ?? ''}: status ${status}: ${text}`);
}
