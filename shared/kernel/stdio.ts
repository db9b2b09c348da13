import { closeSync, constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { CniCode, CniError } from '../cni/errors.ts';
import { deadlineIn, restartCallDeadline, timeoutError, type Deadline } from './deadline.ts';
import { isErrno } from './errno.ts';
import { PIPE_BUF, poll, PollEvent } from './poll.ts';

/**
 * Standard input and output of a plugin. Descriptors are used directly, never `process.stdin` and `process.stdout`: loading the stream
 * classes costs several milliseconds.
 */

/**
 * All of standard input as text, up to end of file. A closed stdin reads as empty (Node opens /dev/null in its place).
 * @throws CniError 5 when it does not end before the call's deadline (a terminal has no limit), 7 when it is larger
 */
export function readStdin(limitMib: number): string {
  const isTerminal = fstatSync(0).isCharacterDevice();
  const wait = deadlineIn();
  const input = openWithoutBlocking(0, constants.O_RDONLY);
  try {
    return readToEnd(input, limitMib, () => {
      if (!isTerminal)
        waitFor(input, PollEvent.in, wait, 'waiting for the end of stdin; does the runtime close it?');
    });
  } finally {
    input.close();
    if (isTerminal) restartCallDeadline();
  }
}

/**
 * Writes all of `text`.
 * @param fd 1 or 2
 * @param limitMs default: until the call's deadline; outside a call without limit, because `weft` may feed a pager
 * @throws CniError 5 when the reader does not take it before the call's deadline, or the write fails
 */
export function writeAll(fd: number, text: string, limitMs = Infinity): void {
  const bytes = Buffer.from(text);
  const wait = deadlineIn(limitMs);
  const output = openWithoutBlocking(fd, constants.O_WRONLY);
  const waitForReader = (): void =>
    waitFor(output, PollEvent.out, wait, `writing to ${nameOf(fd)}; is the runtime reading it?`);
  try {
    for (let done = 0; done < bytes.length;) {
      if (output.mayBlock) waitForReader();
      const length = output.mayBlock ? Math.min(bytes.length - done, PIPE_BUF) : bytes.length - done;
      const written = attempt(fd, () => writeSync(output.fd, bytes, done, length));
      if (written === undefined) waitForReader();
      done += written ?? 0;
    }
  } finally {
    output.close();
  }
}

/** One end of standard input or output. */
interface Stream {
  readonly fd: number;
  /** Whether a read or write must ask poll(2) first. */
  readonly mayBlock: boolean;
  readonly close: () => void;
}

/**
 * The same pipe by a second descriptor that does not block; O_NONBLOCK on `fd` itself would affect the runtime's end of it too.
 * Sockets and terminals cannot be opened again; regular files never block.
 */
function openWithoutBlocking(fd: number, flags: number): Stream {
  const kind = fstatSync(fd);
  if (kind.isFIFO()) {
    try {
      const own = openSync(`/proc/self/fd/${fd}`, flags | constants.O_NONBLOCK);
      return { fd: own, mayBlock: false, close: () => closeSync(own) };
    } catch {
      // No /proc, a pipe of another user, or its reader has closed: use the descriptor as it is.
    }
  }
  return { fd, mayBlock: !kind.isFile(), close: () => undefined };
}

function readToEnd(input: Stream, limitMib: number, waitForInput: () => void): string {
  const chunks: Buffer[] = [];
  for (let left = limitMib * 2 ** 20; left >= 0;) {
    const chunk = Buffer.allocUnsafe(65_536);
    if (input.mayBlock) waitForInput();
    const length = attempt(0, () => readSync(input.fd, chunk));
    if (length === 0) return Buffer.concat(chunks).toString('utf8');
    if (length === undefined) waitForInput();
    chunks.push(chunk.subarray(0, length ?? 0));
    left -= length ?? 0;
  }
  throw stdinTooLarge(limitMib);
}

export function stdinTooLarge(limitMib: number): CniError {
  return new CniError(
    CniCode.InvalidNetworkConfig,
    `the configuration on stdin is larger than ${limitMib} MiB`,
  );
}

/** @returns undefined when nothing could be read or written without waiting */
function attempt(fd: number, io: () => number): number | undefined {
  try {
    return io();
  } catch (thrown) {
    if (isErrno(thrown, 'EAGAIN')) return undefined;
    const code = (thrown as NodeJS.ErrnoException).code ?? String(thrown);
    const verb = fd === 0 ? 'read' : 'write to';
    throw new CniError(CniCode.IoFailure, `cannot ${verb} ${nameOf(fd)}: ${code}`, { cause: thrown });
  }
}

/**
 * Waits for an event of poll(2) or an error condition. Also after the deadline what is possible at once is done: the work of ADD must not be
 * undone because it took all the time.
 * @throws CniError 5 when the deadline has passed
 */
function waitFor({ fd }: Stream, events: number, wait: Deadline, activity: string): void {
  do {
    if (poll([{ fd, events }], wait.remainingMs()).includes(true)) return;
  } while (!wait.passed());
  throw timeoutError(activity, wait, { code: CniCode.IoFailure });
}

function nameOf(fd: number): string {
  return ['stdin', 'stdout', 'stderr'][fd] ?? `descriptor ${fd}`;
}
