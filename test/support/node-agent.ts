import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

/** A node agent on the test's host, and the launchers that belong to it. */
export const LAUNCHERS = resolve(import.meta.dirname, '../../dist/agent');
export const WEFT = resolve(import.meta.dirname, '../../dist/bin/weft');
export const SOCKET = '/run/weft/agent.sock';

/** Why tests with launchers cannot run here; undefined when they can. */
export const launchersMissing = existsSync(`${LAUNCHERS}/bridge`)
  ? undefined
  : 'the build made no launchers, because there is no C compiler';

/** Configurations that the agent's tests call the plugins with. */
export const BRIDGE = {
  cniVersion: '1.0.0',
  name: 'net1',
  type: 'bridge',
  bridge: 'agent0',
  isGateway: true,
  ipMasq: true,
  ipam: { type: 'host-local', ranges: [[{ subnet: '10.95.0.0/24' }]], dataDir: '/run/leases' },
};
export const LOOPBACK = { cniVersion: '1.0.0', name: 'net1', type: 'loopback' };

/** The release that the launchers have in their code: the name of their executable. */
export function release(): string {
  return readdirSync(`${LAUNCHERS}/.weft`)[0] ?? '';
}

export class NodeAgent {
  readonly process: ChildProcess;
  readonly #stderr: Buffer[] = [];

  static readonly #all: NodeAgent[] = [];

  /** Those that a failed test has left. */
  static killAll(): void {
    for (const { process } of NodeAgent.#all.splice(0)) process.kill('SIGKILL');
  }

  private constructor(executable: string, options: readonly string[]) {
    this.process = spawn(executable, ['agent', '--warm-up', '0', ...options], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    NodeAgent.#all.push(this);
    this.process.stderr?.on('data', (chunk: Buffer) => this.#stderr.push(chunk));
  }

  /** Resolves when it serves. */
  static async start(options: readonly string[] = [], executable = WEFT): Promise<NodeAgent> {
    const before = identity();
    const agent = new NodeAgent(executable, options);
    while (identity() === before) {
      if (agent.process.exitCode !== null) throw new Error(`the agent ended: ${agent.log}`);
      await pause(10);
    }
    return agent;
  }

  get log(): string {
    return Buffer.concat(this.#stderr).toString('utf8');
  }

  /** Lines about calls of a plugin; waits for the newest, which is written after the answer. */
  async calls(plugin: string): Promise<string[]> {
    let seen: string;
    do {
      seen = this.log;
      await pause(300);
    } while (seen !== this.log);
    return this.log.split('\n').filter((line) => line.split(' ')[1] === plugin);
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    if (this.process.exitCode === null && this.process.signalCode === null) {
      this.process.kill(signal);
      await once(this.process, 'exit');
    }
    return this.process.exitCode;
  }
}

function identity(): string {
  const found = statSync(SOCKET, { throwIfNoEntry: false });
  return found === undefined ? '' : `${found.dev}:${found.ino}`;
}
