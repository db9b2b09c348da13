import { closeSync, lstatSync, mkdirSync, rmSync, chmodSync, statSync, utimesSync } from 'node:fs';
import { CniCode, CniError } from '../shared/cni/errors.ts';
import { deadlineIn } from '../shared/kernel/deadline.ts';
import { releaseMemory } from '../shared/kernel/memory.ts';
import { closePending } from '../shared/kernel/netlink/socket.ts';
import { isHungUp, isReadable, isReadableBefore } from '../shared/kernel/poll.ts';
import { acceptUnix, listenUnix, peerUid, receiveAll, sendAll } from '../shared/kernel/unix-socket.ts';
import { runCall, type CallOutput, type LoadedPlugins } from './call.ts';
import { callLine, type Log } from './log.ts';
import {
  bodyLength,
  decodeRequest,
  Frame,
  HEADER_BYTES,
  hello,
  lastFrame,
  outputFrame,
  queuedFrame,
} from './wire.ts';
import type { ServedCall } from './metrics/registry.ts';
import type { UpkeepWait } from './upkeep.ts';
import type { Request } from './wire.ts';

export const SOCKET_PATH = '/run/weft/agent.sock';

/**
 * Serves plugin calls, one after the other: a change of the network namespace belongs to the thread. A launcher waits as long as the agent
 * begins a call every 500 ms, which it sees by the socket's modification time; otherwise it goes on without the agent after 100 ms.
 */
export class Server {
  readonly #listener: number;
  readonly #own: { readonly dev: bigint; readonly ino: bigint };
  readonly #hello: Buffer;
  readonly #log: Log;
  readonly #plugins: LoadedPlugins;
  #callsSinceRelease = 0;
  /** No call since the last wait. */
  #isTidy = false;
  /** Called after each call. */
  onServed: (call: ServedCall) => void = () => undefined;

  /** Takes over {@link SOCKET_PATH}: an agent that served there before gets no further call. @throws CniError 5 */
  constructor(release: string, plugins: LoadedPlugins, log: Log) {
    prepareDirectory(SOCKET_PATH.slice(0, SOCKET_PATH.lastIndexOf('/')));
    requireReplaceable(SOCKET_PATH);
    this.#listener = listenUnix(SOCKET_PATH, BACKLOG);
    this.#own = statSync(SOCKET_PATH, { bigint: true });
    this.#hello = hello(release);
    this.#plugins = plugins;
    this.#log = log;
  }

  /**
   * Serves a call that waits, or waits for one. Returns without a call after {@link IDLE_MS}, at first after {@link TIDY_MS}.
   * @param isBusy the event loop has work: returns soon
   * @param milliseconds longest wait @param fd ends the wait, too, when it is readable
   */
  serve({ isBusy, milliseconds, fd }: UpkeepWait & { readonly isBusy: boolean }): void {
    const longest = isBusy ? BUSY_MS : Math.min(milliseconds, this.#isTidy ? IDLE_MS : TIDY_MS);
    const hasCall =
      fd === undefined ? isReadable(this.#listener, longest) : isReadableBefore(this.#listener, fd, longest);
    if (!hasCall) {
      if (isBusy) return;
      closePending();
      this.#isTidy = true;
      if (this.#callsSinceRelease >= IDLE_RELEASE_CALLS) this.#releaseMemory();
      return;
    }
    if (this.#callsSinceRelease >= RELEASE_CALLS) this.#releaseMemory();
    const connection = acceptUnix(this.#listener);
    this.#isTidy = false;
    if (connection === undefined) return;
    this.#showProgress();
    try {
      this.#answer(connection);
    } catch (thrown) {
      this.#log('error', `a call failed: ${thrown instanceof Error ? (thrown.stack ?? '') : String(thrown)}`);
    } finally {
      closeSync(connection);
    }
  }

  /** Whether another agent has taken the path over, or something removed it: no call can arrive any more. */
  isReplaced(): boolean {
    const found = statSync(SOCKET_PATH, { bigint: true, throwIfNoEntry: false });
    return found?.dev !== this.#own.dev || found.ino !== this.#own.ino;
  }

  /** Launchers that wait execute the executable. */
  close(): void {
    if (!this.isReplaced()) rmSync(SOCKET_PATH, { force: true });
    closeSync(this.#listener);
    closePending();
  }

  #showProgress(): void {
    const now = Date.now() / 1000;
    if (!this.isReplaced()) utimesSync(SOCKET_PATH, now, now);
  }

  #releaseMemory(): void {
    releaseMemory();
    this.#callsSinceRelease = 0;
  }

  #answer(connection: number): void {
    this.#callsSinceRelease += 1;
    if (peerUid(connection) !== process.geteuid?.()) {
      this.#log('error', `rejected a connection of user ${peerUid(connection)}`);
      return;
    }
    // A launcher that has given up has closed its end: from here on, only one of the two works on the call.
    const wait = deadlineIn(REQUEST_MS);
    if (!sendAll(connection, this.#hello, wait)) return;
    const header = Buffer.alloc(HEADER_BYTES);
    const first = receiveAll(connection, header, wait);
    if (first === undefined) return;
    const body = Buffer.alloc(bodyLength(header) ?? 0);
    const isComplete = body.length > 0 && receiveAll(connection, body, wait) !== undefined;
    if (isComplete) this.#serve(connection, decodeRequest(header, body), first.passed);
    else if (first.passed !== undefined) closeSync(first.passed);
  }

  /** @param netns is closed before the call ends, so that the caller can unmount the namespace at once */
  #serve(connection: number, request: Request, netns: number | undefined): void {
    const began = process.hrtime.bigint();
    const answer = new Answer(connection);
    const outcome = this.#run(request, netns, answer);
    const last = outcome === 'declined' ? lastFrame(Frame.declined, 0) : lastFrame(Frame.exit, outcome);
    sendAll(connection, last, deadlineIn(ANSWER_MS));
    const milliseconds = Number(process.hrtime.bigint() - began) / 1e6;
    this.#log(
      ...callLine(request, { outcome, stdout: answer.stdout, network: answer.network, milliseconds }),
    );
    this.onServed({
      plugin: request.plugin,
      verb: verbOf(request),
      result: outcome === 'declined' ? 'declined' : outcome === 0 ? 'ok' : 'error',
      seconds: milliseconds / 1000,
    });
  }

  #run(request: Request, netns: number | undefined, answer: Answer): number | 'declined' {
    try {
      return isOwnNetwork(request) ? runCall(this.#plugins, request, netns, answer) : 'declined';
    } finally {
      if (netns !== undefined) closeSync(netns);
    }
  }
}

function verbOf({ environment }: Request): string {
  const command = environment['CNI_COMMAND'] || 'VERSION';
  return VERBS.includes(command) ? command : 'unknown';
}

const VERBS = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'];

/** The answer's frames, as the call makes them. */
class Answer implements CallOutput {
  readonly #connection: number;
  stdout = '';
  /** Undefined while the configuration could not be read. */
  network: string | undefined;

  constructor(connection: number) {
    this.#connection = connection;
  }

  readonly writeOut = (text: string): void => {
    // A result that does not arrive is undone by the caller (protocol.ts).
    if (isHungUp(this.#connection)) throw gone();
    this.#send(outputFrame(Frame.stdout, text));
    this.stdout += text;
  };

  readonly writeErr = (text: string): void => this.#send(outputFrame(Frame.stderr, text));

  readonly onNetwork = (name: string): void => void (this.network = name);

  readonly onQueued = (): void => void sendAll(this.#connection, queuedFrame(), deadlineIn(ANSWER_MS));

  #send(frame: Buffer): void {
    if (!sendAll(this.#connection, frame, deadlineIn(ANSWER_MS))) throw gone();
  }
}

function gone(): CniError {
  return new CniError(CniCode.IoFailure, 'the launcher has ended');
}

/** All paths of the call's network (/proc, sysctl) mean the agent's: another one needs a process there. */
function isOwnNetwork({ netns }: Request): boolean {
  const own = statSync('/proc/self/ns/net', { bigint: true });
  return own.dev === netns.dev && own.ino === netns.ino;
}

/** While a request for metrics is answered. */
const BUSY_MS = 1;
/** Without a call for so long, the agent tidies up. */
const TIDY_MS = 200;
/** Then it looks at its socket and tells systemd that it works; signals end a wait. */
const IDLE_MS = 5_000;
/** A call leaves some 10 KiB that only {@link releaseMemory} frees: after so many it runs when the agent is idle, ... */
const IDLE_RELEASE_CALLS = 100;
/** ... and after so many between two calls. */
const RELEASE_CALLS = 1_000;
/** A launcher sends its request at once. */
const REQUEST_MS = 1_000;
/** A launcher reads the answer at once. */
const ANSWER_MS = 1_000;
const BACKLOG = 1_024;

/** Only root may connect, and replace the socket. */
function prepareDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const found = lstatSync(directory);
  if (!found.isDirectory() || found.uid !== process.geteuid?.()) {
    throw new CniError(CniCode.IoFailure, `${directory} must be a directory that belongs to root`, {
      details: 'remove it and start the agent again',
    });
  }
  if ((found.mode & 0o077) !== 0) chmodSync(directory, 0o700);
}

function requireReplaceable(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined || (found.isSocket() && found.uid === process.geteuid?.())) return;
  throw new CniError(CniCode.IoFailure, `${path} exists and is no socket of root's`, {
    details: 'remove it and start the agent again',
  });
}
