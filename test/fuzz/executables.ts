import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { callAgent } from '../support/agent-client.ts';
import { binDir } from '../support/executables.ts';
import { plainBin, type Route } from '../support/mixed-calls.ts';
import type { ProcessOutcome } from '../support/plugin.ts';
import type { Case } from './cases.ts';
import type { Answer } from './judge.ts';

/** What one call of an executable took. */
export interface Cost {
  readonly seconds: number;
  /** Peak resident memory, as last sampled; 0 for a call shorter than the sampling interval. */
  readonly mebibytes: number;
}

/** A call that takes longer is killed; one that needs more is, too. */
const LONGEST_SECONDS = 20;
const MOST_MEBIBYTES = 1000;
const SAMPLE_MS = 40;

/** Runs the case's plugin by the route to its end. */
export function runCase(one: Case, route: Route): Promise<{ answer: Answer; cost: Cost }> {
  return route === 'agent' ? runInAgent(one) : runExecutable(one, route === 'launcher' ? binDir : plainBin);
}

/** The agent's own peak memory counts. */
async function runInAgent(one: Case): Promise<{ answer: Answer; cost: Cost }> {
  const began = performance.now();
  const agent = Number(process.env['WEFT_TEST_AGENT_PID']);
  writeFileSync(`/proc/${agent}/clear_refs`, RESET_PEAK);
  const { plugin, environment, stdin } = one;
  const patience = LONGEST_SECONDS * 1000;
  let outcome: ProcessOutcome | 'declined';
  try {
    outcome = await callAgent(plugin, { env: possible(environment), stdin, patience });
  } catch (thrown) {
    outcome = { exitCode: null, stdout: '', stderr: String(thrown) };
  }
  if (outcome === 'declined') return runExecutable(one, plainBin);
  const { exitCode, stdout: out, stderr: err } = outcome;
  const seconds = (performance.now() - began) / 1000;
  return { answer: { exitCode, out, err }, cost: { seconds, mebibytes: peakMemory(agent) } };
}

/** Of VmHWM (proc(5)). */
const RESET_PEAK = '5';

/** In a directory of its own. */
function runExecutable(one: Case, bin: string): Promise<{ answer: Answer; cost: Cost }> {
  const began = performance.now();
  const child = spawn(`${bin}/${one.plugin}`, [], {
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...possible(one.environment) },
    cwd: '/run/cwd',
    timeout: LONGEST_SECONDS * 1000,
    killSignal: 'SIGKILL',
  });
  let out = '';
  let err = '';
  let mebibytes = 0;
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (out += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (err += chunk));
  child.stdin.on('error', () => undefined).end(one.stdin);
  const sampling = setInterval(() => {
    mebibytes = Math.max(mebibytes, peakMemory(child.pid ?? 0));
    if (mebibytes > MOST_MEBIBYTES) child.kill('SIGKILL');
  }, SAMPLE_MS);
  return new Promise((done, fail) => {
    child.on('error', fail).on('close', (exitCode) => {
      clearInterval(sampling);
      done({
        answer: { exitCode, out, err },
        cost: { seconds: (performance.now() - began) / 1000, mebibytes },
      });
    });
  });
}

/** What execve(2) can pass: no NUL, at most 128 KiB a variable. */
function possible(environment: Case['environment']): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [name, value.replaceAll('\0', '').slice(0, 40_000)]),
  );
}

/** VmHWM of proc(5), in MiB; 0 if the process has ended. */
function peakMemory(pid: number): number {
  try {
    const [, kibibytes = '0'] = /^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
    return Number(kibibytes) / 1024;
  } catch {
    return 0;
  }
}
