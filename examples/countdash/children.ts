import { type ChildProcess, spawn } from 'node:child_process';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ChildMessage, ChildOrder } from './child.ts';
import { virtualName } from './dns.ts';
import { APP_UID, NAMES, type Plan } from './plan.ts';
import type { ProbeAnswer, ProbeConfig } from './programs.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';

const READY_MS = 15_000;
const STOP_MS = 3_000;
const STDERR_KEPT = 2_000;

export interface ChildSpec {
  /** Shown in messages: `sidecar of count-api`. */
  readonly name: string;
  /** Named namespace that it runs in; the host's when undefined. */
  readonly netns?: string;
  readonly order: ChildOrder;
}

/**
 * The processes of the example. Each runs this executable in a session of its own, so that Ctrl-C reaches only the parent,
 * and ends when its stdin is closed.
 */
export class Children {
  readonly #running = new Map<ChildProcess, string>();
  readonly #log: (line: string) => void;
  #stopping = false;
  #died: (reason: Error) => void = () => undefined;

  /** Rejects when a child ends that was not asked to stop. */
  readonly death: Promise<never>;

  constructor(log: (line: string) => void) {
    this.#log = log;
    this.death = new Promise((_, reject) => (this.#died = reject));
    // Callers await the rejection later; until then it must not count as unhandled.
    this.death.catch(() => undefined);
  }

  /** Starts a child and resolves to the result that it reports when it is ready. */
  async start(spec: ChildSpec): Promise<unknown> {
    const child = launch(spec);
    this.#running.set(child, spec.name);
    let stderrText = '';
    child.stderr?.on(
      'data',
      (chunk: Buffer) => (stderrText = (stderrText + chunk.toString()).slice(-STDERR_KEPT)),
    );
    const ready = new Promise<unknown>((resolve, reject) => {
      const timer = setTimeout(
        () => reject(failure(spec.name, 'was not ready in time', stderrText)),
        READY_MS,
      );
      this.#listen(child, spec.name, (result) => {
        clearTimeout(timer);
        resolve(result);
      });
      const ended = (how: string): void => {
        clearTimeout(timer);
        this.#running.delete(child);
        const reason = failure(spec.name, how, stderrText);
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

  /** Runs a child that reports one result and ends. */
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

  /** Closes stdin of all children, waits for their end, and kills those that do not end. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(
      [...this.#running].map(([child, name]) =>
        stopOne(child, () => this.#log(`the ${name} did not stop and was killed`)),
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

/** A line that is not one of our messages (an error of the JavaScript runtime) is shown as it is. */
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
  return spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'], detached: true, env: childEnvironment() });
}

/** Children inherit nothing but PATH: NODE_OPTIONS or proxy variables would change them. sbin is added, for `ip`. */
function childEnvironment(): NodeJS.ProcessEnv {
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

function failure(name: string, how: string, stderrText: string): CniError {
  const details = stderrText.trim();
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

/** Runs a probe inside a namespace, as an ordinary user. */
export async function askInside(
  children: Children,
  netns: string,
  config: ProbeConfig,
): Promise<ProbeAnswer> {
  const order = { role: 'probe', uid: APP_UID, config } as const;
  return (await children.ask({ name: 'probe', netns, order })) as ProbeAnswer;
}

/**
 * Resolves count-api inside the dashboard's namespace. The query passes the host's INPUT rules, as with a real Consul agent on a
 * client: on a host that drops it, the only other symptom would be a counter that does not rise.
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
      `does the host's firewall drop packets from ${NAMES.bridge}? Accept UDP and TCP port ${dns?.port} from ` +
      `${subnets[0]}, as a Nomad client with Consul needs`,
  });
}
