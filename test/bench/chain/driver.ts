/**
 * Runs chains in a small process. To start a program, Node copies its page tables: in a process as large as the benchmark this takes up to
 * 5 ms for each plugin, whosever it is. Nomad's Go shares them (CLONE_VM | CLONE_VFORK), so that its size does not matter.
 */
import { execFileSync, spawn } from 'node:child_process';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { Allocation, Verb } from './calls.ts';
import { runChain, type ChainOutcome } from './invoke.ts';
import { childrenCpu } from './machine.ts';
import type { List, PluginSuite } from './suites.ts';

export interface DrivenChain {
  readonly suite: PluginSuite;
  readonly list: List;
  readonly verb: Verb;
  readonly allocation: Allocation;
  readonly prevResult?: unknown;
}

/** With the processor time, in ms, of all processes that the chain started. */
export type DrivenOutcome = ChainOutcome & { readonly cpu: number };

/** @throws Error with the plugin's answer when one fails */
export function drive(chain: DrivenChain): DrivenOutcome {
  pipes ??= start();
  writeLine(pipes.requests, { path: process.env['PATH'], chain });
  const answer = readLine(pipes.answers);
  if (answer === undefined) throw new Error('the driver has ended');
  const { error, outcome, plugins } = answer as Answer;
  if (outcome === undefined) throw new Error(error);
  return { ...outcome, times: { ...outcome.times, plugins: new Map(plugins) } };
}

/** What goes through the pipe; a Map does not. */
interface Answer {
  readonly error?: string;
  readonly outcome?: DrivenOutcome;
  readonly plugins?: [string, number][];
}

let pipes: { readonly requests: number; readonly answers: number } | undefined;

/** Both ends wait for each other at the named pipes. */
function start(): NonNullable<typeof pipes> {
  execFileSync('mkfifo', [REQUESTS, ANSWERS]);
  spawn(process.execPath, ['--no-warnings', import.meta.filename], {
    stdio: ['ignore', 'inherit', 'inherit'],
  }).unref();
  return { requests: openSync(REQUESTS, 'w'), answers: openSync(ANSWERS, 'r') };
}

const REQUESTS = '/run/bench-requests';
const ANSWERS = '/run/bench-answers';

/** Until the benchmark ends. */
function serve(): void {
  const requests = openSync(REQUESTS, 'r');
  const answers = openSync(ANSWERS, 'w');
  for (let line = readLine(requests); line !== undefined; line = readLine(requests)) {
    const { path, chain } = line as { path: string; chain: DrivenChain };
    process.env['PATH'] = path;
    writeLine(answers, answerTo(chain));
  }
  closeSync(answers);
}

function answerTo({ suite, list, verb, allocation, prevResult }: DrivenChain): Answer {
  const before = childrenCpu();
  try {
    const outcome = runChain(suite, list, verb, allocation, prevResult);
    const cpu = childrenCpu() - before;
    return { outcome: { ...outcome, cpu }, plugins: [...outcome.times.plugins] };
  } catch (thrown) {
    return { error: thrown instanceof Error ? thrown.message : String(thrown) };
  }
}

function writeLine(fd: number, value: unknown): void {
  const bytes = Buffer.from(`${JSON.stringify(value)}\n`);
  for (let at = 0; at < bytes.length;) at += writeSync(fd, bytes, at);
}

/** One at a time: nothing follows it before it is answered. @returns undefined at the end of the file */
function readLine(fd: number): unknown {
  const chunk = Buffer.alloc(64 * 1024);
  let text = '';
  while (!text.endsWith('\n')) {
    const size = readSync(fd, chunk);
    if (size === 0) return undefined;
    text += chunk.toString('latin1', 0, size);
  }
  return JSON.parse(Buffer.from(text, 'latin1').toString()) as unknown;
}

if (import.meta.main) serve();
