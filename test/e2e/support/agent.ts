import { spawn, type ChildProcess } from 'node:child_process';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Order } from './agent-main.ts';

const MAIN = resolve(import.meta.dirname, 'agent-main.ts');

/** A process in a namespace, under a user id, that serves and asks over real sockets. */
export class Agent {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (answer: string) => void>();
  #last = 0;
  /** Resolves when the process has ended: a namespace lives as long as a process in it. */
  readonly ended: Promise<void>;

  /**
   * @param netns name of a namespace; undefined for the test's own host @param main its program
   * @param capabilities that a user other than root keeps, as setpriv(1) writes them
   */
  constructor(netns: string | undefined, uid = 0, main = MAIN, capabilities = '') {
    const command = [
      'setpriv',
      `--reuid=${uid}`,
      `--regid=${uid}`,
      '--clear-groups',
      ...(capabilities === '' ? [] : [`--inh-caps=${capabilities}`, `--ambient-caps=${capabilities}`]),
      process.execPath,
      '--no-warnings',
      main,
    ];
    const [file = '', ...args] = netns === undefined ? command : ['ip', 'netns', 'exec', netns, ...command];
    this.#child = spawn(file, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.stdin?.on('error', () => undefined);
    if (this.#child.stdout === null) throw new Error('no stdout');
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const { id, answer } = JSON.parse(line) as { id: number; answer: string };
      this.#waiting.get(id)?.(answer);
      this.#waiting.delete(id);
    });
    this.ended = new Promise((done) => {
      this.#child.on('exit', () => {
        for (const settle of this.#waiting.values()) settle('error the agent has ended');
        done();
      });
    });
  }

  /** The port answers `<name> <address of who asked>`, by tcp followed by where the connection was going before any redirect. */
  async serve(port: number, name: string, host = '::'): Promise<void> {
    for (const protocol of ['tcp', 'udp'] as const) {
      const order: Order = { do: 'serve', protocol, host, port, name };
      const answer = await this.order(order);
      if (answer !== 'serving') throw new Error(`${name} on ${protocol} port ${port}: ${answer}`);
    }
  }

  /** What the port answers; `error CODE` when it does not. */
  tcp(host: string, port: number): Promise<string> {
    return this.order({ do: 'ask', protocol: 'tcp', host, port }).then((answer) => answer.trim());
  }

  udp(host: string, port: number): Promise<string> {
    return this.order({ do: 'ask', protocol: 'udp', host, port });
  }

  /** Goes on in another namespace, or with undefined in its first one. Needs CAP_SYS_ADMIN. */
  async enter(netns: string | undefined): Promise<void> {
    const answer = await this.order({ do: 'enter', netns } satisfies Order);
    if (answer !== 'entered') throw new Error(`entering ${netns ?? 'the first namespace'}: ${answer}`);
  }

  /** Ends every {@link serve}. */
  async close(): Promise<void> {
    await this.order({ do: 'close' } satisfies Order);
  }

  stop(): void {
    this.#child.stdin?.end();
  }

  protected order(order: object): Promise<string> {
    const id = (this.#last += 1);
    return new Promise((settle) => {
      this.#waiting.set(id, settle);
      this.#child.stdin?.write(`${JSON.stringify({ id, order })}\n`);
    });
  }
}
