import { type ChildProcess, spawn } from 'node:child_process';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ChildMessage, ChildOrder } from './child.ts';
import { virtualName } from './dns.ts';
import { NAMES, type Plan } from './plan.ts';
import type { ProbeAnswer, ProbeConfig } from './programs.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';

const READY_MS = 15_000;
const STOP_MS = 3_000;
const STDERR_KEPT = 2_000;

export interface ChildSpec {
  /** For people: `sidecar of count-api`. */
  readonly name: string;
  /** Named namespace that it runs in; the host's when undefined. */
  readonly netns?: string;
  readonly order: ChildOrder;
}

/**
 * The processes of the example. Each is this very program, in a session of its own so that Ctrl-C reaches only the parent, and on
 * a leash: its stdin ends with the parent.
 */
export class Children {
  readonly #running = new Map<ChildProcess, string>();
  readonly #log: (line: string) => void;
  #stopping = false;
  #died: (reason: Error) => void = () => undefined;

  /** Rejects when a child ends that nobody stopped. */
  readonly death: Promise<never>;

  constructor(log: (line: string) => void) {
    this.#log = log;
    this.death = new Promise((_, reject) => (this.#died = reject));
    // Whoever waits gets the rejection; nobody waiting yet is no reason to crash.
    this.death.catch(() => undefined);
  }

  /** Starts a child and resolves to the result that it reports when it is ready. */
  async start(spec: ChildSpec): Promise<unknown> {
    const child = launch(spec);
    this.#running.set(child, spec.name);
    let complaints = '';
    child.stderr?.on(
      'data',
      (chunk: Buffer) => (complaints = (complaints + chunk.toString()).slice(-STDERR_KEPT)),
    );
    const ready = new Promise<unknown>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(failure(spec.name, 'did not get ready in time', complaints)),
        READY_MS,
      );
      this.#listen(child, spec.name, (result) => {
        clearTimeout(timer);
        resolve(result);
      });
      const ended = (how: string): void => {
        clearTimeout(timer);
        this.#running.delete(child);
        const reason = failure(spec.name, how, complaints);
        reject(reason);
        if (!this.#stopping) this.#died(reason);
      };
      child.once('error', (error) => ended(`could not be started: ${error.message}`));
      child.once('exit', (code, signal) => ended(`ended (${signal ?? `exit code ${code}`})`));
    });
    child.stdin?.on('error', () => undefined);
    child.stdin?.write(`${JSON.stringify(spec.order)}\n`);
    return ready;
  }

  /** Runs a child that answers one question and is let go. */
  async ask(spec: ChildSpec): Promise<unknown> {
    const once = new Children(this.#log);
    try {
      return await once.start(spec);
    } finally {
      await once.stop();
    }
  }

  /** Process ids of all that run. */
  get pids(): number[] {
    return [...this.#running.keys()].flatMap(({ pid }) => (pid === undefined ? [] : [pid]));
  }

  /** Lets go of all, waits for their end, and kills what does not end. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(
      [...this.#running].map(([child, name]) =>
        stopOne(child, () => this.#log(`the ${name} had to be killed`)),
      ),
    );
    this.#running.clear();
  }

  #listen(child: ChildProcess, name: string, onReady: (result: unknown) => void): void {
    if (child.stdout === null) return;
    createInterface({ input: child.stdout }).on('line', (line) => {
      const message = messageOf(line);
      if (message.say === 'ready') onReady(message.result);
      else this.#log(`${name}: ${message.line}`);
    });
  }
}

/** What is no message of ours (a runtime's own complaint) is shown as it is. */
function messageOf(line: string): ChildMessage {
  try {
    return JSON.parse(line) as ChildMessage;
  } catch {
    return { say: 'log', line };
  }
}

function launch({ netns, order }: ChildSpec): ChildProcess {
  const command = [...weftCommand(), 'countdash-child', order.role];
  const [file = '', ...args] = netns === undefined ? command : ['ip', 'netns', 'exec', netns, ...command];
  return spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'], detached: true, env: surroundings() });
}

/** Nothing of the caller's that could bend the children: no NODE_OPTIONS, no proxies. PATH finds `ip` where PATH lacks sbin. */
function surroundings(): NodeJS.ProcessEnv {
  return { PATH: `${process.env['PATH'] ?? ''}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin` };
}

function stopOne(child: ChildProcess, onKill: () => void): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((done) => {
    const timer = setTimeout(() => {
      onKill();
      child.kill('SIGKILL');
    }, STOP_MS);
    child.once('exit', () => {
      clearTimeout(timer);
      done();
    });
    child.once('error', () => done());
    child.stdin?.end();
  });
}

function failure(name: string, how: string, complaints: string): CniError {
  const details = complaints.trim();
  return new CniError(CniCode.Internal, `the ${name} ${how}`, details === '' ? {} : { details });
}

/**
 * The command line that runs `weft` again, from whatever this is: the executable, or the sources under a Node. The executable acts by
 * the name that it is called by, so it must be called by its file named `weft`.
 */
export function weftCommand(): string[] {
  const { execPath } = process;
  if (process.getBuiltinModule('node:sea').isSea()) {
    return [basename(execPath) === 'weft' ? execPath : join(dirname(execPath), 'weft')];
  }
  const main = JSON.stringify(new URL('../../cli/main.ts', import.meta.url).href);
  const code = `const { main } = await import(${main}); process.exit(await main('weft', process.argv.slice(1)));`;
  return [execPath, '--no-warnings', '--input-type=module', '-e', code, '--'];
}

/** An ordinary user: programs of the groups, and the DNS, need no rights. */
export const APP_UID = 65534;

/** Asks a question from inside a namespace, as the groups' programs would. */
export async function askInside(
  children: Children,
  netns: string,
  config: ProbeConfig,
): Promise<ProbeAnswer> {
  const order = { role: 'probe', uid: APP_UID, config } as const;
  return (await children.ask({ name: 'probe', netns, order })) as ProbeAnswer;
}

/**
 * The virtual address of count-api as the dashboard will learn it. It is the one thing that passes the host's own INPUT rules, as
 * with a real Consul on the client: a host that drops it would only be seen as a counter that stands still.
 */
export async function resolveInside(
  { dashboard, api, dns, subnets }: Plan,
  children: Children,
): Promise<string> {
  const name = virtualName(api.service);
  const { answer, error } = await askInside(children, dashboard.netns, { ask: 'resolve', name });
  if (answer === api.virtualAddress) return `${name} is ${answer} in ${dashboard.netns}`;
  throw new CniError(CniCode.IoFailure, `${name} has no address in ${dashboard.netns}: ${answer ?? error}`, {
    details:
      `does this host's firewall drop what comes in by ${NAMES.bridge}? Let udp and tcp port ${dns?.port} in from ` +
      `${subnets[0]}, as for Consul on a Nomad client`,
  });
}
