import { closeSync, readSync, writeSync } from 'node:fs';
import { sleep, waitUntil, type Deadline } from '../kernel/deadline.ts';
import { isErrno } from '../kernel/errno.ts';
import { PIPE_BUF, poll, PollEvent, type PollRequest } from '../kernel/poll.ts';
import { endOf, type Child, type ChildEnd } from '../kernel/spawn.ts';

/** What became of a program, and all that it printed until then. */
export interface Ran {
  /** `timeout`, `output`: it did not end in time, or printed too much, and was killed. */
  readonly ended: ChildEnd | 'timeout' | 'output';
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Feeds a program and reads what it prints, until nothing holds its output any more and it has ended.
 * @param outputLimit bytes on stdout and stderr together
 */
export function runToEnd(child: Child, input: string, wait: Deadline, outputLimit: number): Ran {
  const stdin = new Feed(child.stdin, Buffer.from(input));
  const [stdout, stderr] = [new Output(child.stdout), new Output(child.stderr)] as const;
  const isTooLarge = (): boolean => stdout.length + stderr.length > outputLimit;
  let ended: Ran['ended'] = 'timeout';
  try {
    ended = transfer([stdin, stdout, stderr], wait, isTooLarge) ?? waitForEnd(child.pid, wait) ?? 'timeout';
  } finally {
    for (const stream of [stdin, stdout, stderr]) stream.close();
    if (typeof ended === 'string') kill(child.pid);
  }
  return { ended, stdout: stdout.text(), stderr: stderr.text() };
}

function transfer(
  streams: readonly Stream[],
  wait: Deadline,
  isTooLarge: () => boolean,
): 'timeout' | 'output' | undefined {
  for (;;) {
    const open = streams.filter(({ isOpen }) => isOpen);
    if (open.length === 0) return undefined;
    if (wait.passed()) return 'timeout';
    const ready = poll(open, wait.remainingMs());
    open.forEach((stream, at) => {
      if (ready[at] === true) stream.advance();
    });
    if (isTooLarge()) return 'output';
  }
}

/** A program ends a moment after its output; one may also close its output and go on. */
function waitForEnd(pid: number, wait: Deadline): ChildEnd | undefined {
  let end: ChildEnd | undefined;
  waitUntil(wait.remainingMs(), () => (end = endOf(pid)) !== undefined, FIRST_PAUSE_MS);
  return end;
}

const FIRST_PAUSE_MS = 0.05;
/** Milliseconds for the kernel to take a killed program apart; one that is stuck in a system call stays a child of this process. */
const KILL_LIMIT = 500;

function kill(pid: number): void {
  process.kill(pid, 'SIGKILL');
  for (let left = KILL_LIMIT; left > 0 && endOf(pid) === undefined; left--) sleep(1);
}

/** Our end of one of the program's pipes. */
abstract class Stream implements PollRequest {
  readonly fd: number;
  abstract readonly events: number;
  isOpen = true;

  constructor(fd: number) {
    this.fd = fd;
  }

  /** Transfers what is possible without blocking, when poll(2) has reported the descriptor. Closes it at its end. */
  abstract advance(): void;

  close(): void {
    if (this.isOpen) closeSync(this.fd);
    this.isOpen = false;
  }
}

class Feed extends Stream {
  readonly events = PollEvent.out;
  #rest: Buffer;

  constructor(fd: number, bytes: Buffer) {
    super(fd);
    this.#rest = bytes;
    if (bytes.length === 0) this.close();
  }

  advance(): void {
    try {
      const length = Math.min(this.#rest.length, PIPE_BUF);
      this.#rest = this.#rest.subarray(writeSync(this.fd, this.#rest, 0, length));
    } catch (thrown) {
      // The program has closed its stdin: it may leave its input unread.
      if (!isErrno(thrown, 'EPIPE')) throw thrown;
      this.close();
    }
    if (this.#rest.length === 0) this.close();
  }
}

class Output extends Stream {
  readonly events = PollEvent.in;
  length = 0;
  readonly #chunks: Buffer[] = [];

  advance(): void {
    const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
    const length = readSync(this.fd, chunk);
    this.#chunks.push(chunk.subarray(0, length));
    this.length += length;
    if (length === 0) this.close();
  }

  text(): string {
    return Buffer.concat(this.#chunks).toString();
  }
}

/** The size of a pipe. */
const CHUNK_BYTES = 65_536;
