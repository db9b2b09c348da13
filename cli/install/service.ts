import { existsSync } from 'node:fs';
import { toCniError } from '../../shared/cni/errors.ts';
import { findProgram, runProgram } from '../../shared/process/run-program.ts';
import { UNIT, unitPath, type Places } from './target.ts';

/** The agent's systemd unit. On a host without systemd, or in another file system than this host's, nothing is done. */
export class AgentService {
  readonly warnings: string[] = [];
  readonly #systemctl: string | undefined;
  readonly #unit: string;

  constructor({ root }: Places) {
    this.#unit = unitPath(root);
    this.#systemctl =
      root === '/' && existsSync('/run/systemd/system') ? findProgram('systemctl') : undefined;
  }

  /** @param remains whether the unit will exist afterwards */
  beforeChange(remains: boolean): void {
    if (!remains && existsSync(this.#unit)) this.#run('disable', '--now', UNIT);
  }

  /** @param concerned whether the unit was installed, replaced or removed */
  afterChange(concerned: boolean): void {
    if (!concerned) return;
    this.#run('daemon-reload');
    if (existsSync(this.#unit)) this.start();
  }

  start(): void {
    this.#run('enable', UNIT);
    this.#run('restart', UNIT);
  }

  get isRunning(): boolean {
    return ['is-enabled', 'is-active'].every((question) => this.#ask(question, UNIT) === undefined);
  }

  #run(...args: string[]): void {
    const failure = this.#ask(...args);
    if (failure !== undefined) this.warnings.push(failure);
  }

  /** @returns why it failed */
  #ask(...args: string[]): string | undefined {
    if (this.#systemctl === undefined) return undefined;
    const command = `systemctl ${args.join(' ')}`;
    try {
      const { exitCode, stderr } = runProgram(this.#systemctl, args, { timeoutMs: 60_000 });
      return exitCode === 0 ? undefined : `${command} failed (exit status ${exitCode}): ${stderr.trim()}`;
    } catch (thrown) {
      return `${command} failed: ${toCniError(thrown).message}`;
    }
  }
}
