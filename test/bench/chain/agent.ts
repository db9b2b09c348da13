/** The node agent of the suite `agent`, on the benchmark's host. */
import { spawn, type ChildProcess } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { AGENT, WEFT } from './suites.ts';

let agent: ChildProcess | undefined;
/** How the agent ended that should still run. */
let ended: string | undefined;

export const hasLaunchers = existsSync(`${AGENT.binDir}/bridge`);

/** Returns when it is warm. It looks for programs in the benchmark's PATH. @param log descriptor for its log: everything from warnings on */
export function startAgent(log?: number): void {
  const level = log === undefined ? 'error' : 'warning';
  const started = spawn(`${WEFT.binDir}/weft`, ['agent', '--log-level', level], {
    stdio: ['ignore', 'ignore', log ?? 'inherit'],
  });
  agent = started;
  ended = undefined;
  // The one before may end after this one has started.
  started.once('exit', (code, signal) => {
    if (agent === started) ended = signal ?? `exit status ${code}`;
  });
  while (!existsSync('/run/weft/agent.sock')) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    if (!existsSync(`/proc/${started.pid ?? 0}`)) throw new Error('the node agent did not start');
  }
}

export function stopAgent(): void {
  agent?.kill('SIGKILL');
  agent = undefined;
}

/** Milliseconds of processor that the running agent has used, all threads (Documentation/scheduler/sched-stats.rst); 0 without one. */
export function agentCpu(): number {
  if (agent === undefined) return 0;
  if (ended !== undefined) throw new Error(`the node agent ended: ${ended}`);
  const tasks = `/proc/${agent.pid ?? 0}/task`;
  const spent = readdirSync(tasks).map(
    (id) => readFileSync(`${tasks}/${id}/schedstat`, 'utf8').split(' ')[0],
  );
  return spent.reduce((sum, nanoseconds) => sum + Number(nanoseconds) / 1e6, 0);
}

/** Its memory in MiB: resident, and what of it is not backed by the file. */
export function agentMemory(): { resident: number; own: number } {
  const status = readFileSync(`/proc/${agent?.pid ?? 0}/status`, 'utf8');
  const of = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1024;
  return { resident: of('VmRSS'), own: of('RssAnon') };
}

export function agentDescriptors(): number {
  return readdirSync(`/proc/${agent?.pid ?? 0}/fd`).length;
}
