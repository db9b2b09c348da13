import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import { fetchText } from '../programs.ts';

/** An agent that runs until it gets SIGTERM: Consul's or Nomad's. */
export interface AgentSpec {
  /** Path of the program. */
  readonly program: string;
  readonly args: readonly string[];
  readonly logFile: string;
  /** Its HTTP API on 127.0.0.1, and what the answer to `path` must satisfy once the agent is ready. */
  readonly ready: {
    readonly port: number;
    readonly path: string;
    readonly when: (answer: unknown) => boolean;
  };
}

const READY_MS = 60_000;
const STOP_MS = 20_000;
const POLL_MS = 200;
const LOG_LINES = 5;

/** The agents of `weft countdash --nomad`, in the order in which they were started. */
export class Agents {
  readonly #running: { readonly child: ChildProcess; readonly name: string }[] = [];
  #stopping = false;
  #ended: CniError | undefined;
  #died: (reason: Error) => void = () => undefined;

  /** Rejects when an agent ends that was not asked to stop. */
  readonly death: Promise<never>;

  constructor() {
    this.death = new Promise((_, reject) => (this.#died = reject));
    // Callers await the rejection later; until then it must not count as unhandled.
    this.death.catch(() => undefined);
  }

  /** Starts an agent in a session of its own, where Ctrl-C does not reach it, and resolves when it is ready. */
  async start({ program, args, logFile, ready }: AgentSpec): Promise<void> {
    const name = basename(program);
    const log = openSync(logFile, 'a', 0o600);
    // setpriv(1) has the kernel stop the agent when this process ends, whatever ends it.
    const child = spawn('setpriv', ['--pdeathsig', 'TERM', '--', program, ...args], {
      stdio: ['ignore', log, log],
      detached: true,
      env: agentEnvironment(),
    });
    closeSync(log);
    this.#running.push({ child, name });
    const ended = (how: string): void => {
      if (this.#stopping || this.#ended !== undefined) return;
      this.#ended = failure(`${name} ${how}`, logFile);
      this.#died(this.#ended);
    };
    child.once('error', ({ message }) => ended(`could not be started: ${message}`));
    child.once('exit', (code, signal) => ended(`ended (${signal ?? `exit code ${code}`})`));
    const isReady = async (): Promise<boolean> => {
      this.throwIfEnded();
      return ready.when(await getJson(ready.port, ready.path));
    };
    if (!(await waitFor(READY_MS, isReady)))
      throw failure(`${name} was not ready after ${READY_MS / 1000} s`, logFile);
  }

  /** To be called while waiting for something that needs the agents. */
  throwIfEnded(): void {
    if (this.#ended !== undefined) throw this.#ended;
  }

  /** Stops the agents, the last one first. @param log hears of an agent that had to be killed */
  async stop(log: (line: string) => void): Promise<void> {
    this.#stopping = true;
    for (const { child, name } of this.#running.toReversed()) {
      child.kill('SIGTERM');
      if (await waitFor(STOP_MS, () => Promise.resolve(hasEnded(child)))) continue;
      log(`${name} did not stop within ${STOP_MS / 1000} s and was killed`);
      child.kill('SIGKILL');
    }
  }
}

/** Variables such as CONSUL_HTTP_ADDR or NOMAD_ADDR would lead the programs to other agents. */
export function agentEnvironment(): NodeJS.ProcessEnv {
  const { PATH = '', HOME = '/root' } = process.env;
  return { PATH: `${PATH}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin`, HOME };
}

/** @returns whether `isDone` came true within `timeoutMs` */
export async function waitFor(timeoutMs: number, isDone: () => Promise<boolean>): Promise<boolean> {
  for (const deadline = Date.now() + timeoutMs; Date.now() < deadline;) {
    if (await isDone()) return true;
    await pause(POLL_MS);
  }
  return false;
}

/** What an HTTP API of this host answers with status 200, decoded; undefined when there is no such answer. */
export async function getJson(port: number, path: string): Promise<unknown> {
  try {
    return JSON.parse(await fetchText(`http://127.0.0.1:${port}${path}`));
  } catch {
    return undefined;
  }
}

function hasEnded({ exitCode, signalCode, pid }: ChildProcess): boolean {
  return pid === undefined || exitCode !== null || signalCode !== null;
}

function failure(message: string, logFile: string): CniError {
  const lines = readFileSync(logFile, 'utf8').trim().split('\n').slice(-LOG_LINES);
  return new CniError(CniCode.IoFailure, message, { details: `the end of its log:\n${lines.join('\n')}` });
}
