import { constants, fstatSync, openSync, readSync, writeSync } from 'node:fs';
import { CniCode, CniError } from '../cni/errors.ts';
import { deadlineIn } from './clock.ts';
import { libc } from './libc.ts';

/** Milliseconds that the other side of a pipe may stand still before the plugin gives up: Nomad waits with its global lock held. */
const PATIENCE = 10_000;
/** Milliseconds for the whole of stdin, however steadily it comes. */
const ALTOGETHER = 30_000;
/** Fifty times a GC's list of ten thousand containers; a stream without an end must not eat the host's memory first. */
const LARGEST_MIB = 64;
/** poll.h */
const POLLIN = 1;
const POLLOUT = 4;
const UNREAD = 'nobody reads the answer';
const UNENDING = 'the configuration on stdin has no end';

/**
 * The whole of standard input, as text, until end of file. Descriptors are used directly, never `process.stdin`: loading the stream
 * classes would cost several milliseconds. A closed stdin reads as empty (Node opens /dev/null in its place).
 * @throws CniError 5 when nothing comes for ten seconds and the other side keeps its end open (at a terminal there is no limit), when it
 *   goes on for half a minute, or beyond 64 MiB
 */
export function readStdin(): string {
  const fd = withoutBlocking(0);
  const kind = fstatSync(fd);
  const blocks = kind.isSocket();
  const chunks: Buffer[] = [];
  const deadline = deadlineIn(ALTOGETHER);
  for (let room = LARGEST_MIB * 2 ** 20; ;) {
    const chunk = Buffer.allocUnsafe(65_536);
    if (blocks && !becomesReady(fd, POLLIN)) throw standstill(UNENDING);
    const length = patiently(fd, POLLIN, UNENDING, () => readSync(fd, chunk));
    if (length === 0) return Buffer.concat(chunks).toString('utf8');
    chunks.push(chunk.subarray(0, length));
    room -= length;
    if (room < 0) throw endless(`it may have ${LARGEST_MIB} MiB, and more came`);
    if (deadline.passed() && !kind.isCharacterDevice())
      throw endless(`it still came after ${ALTOGETHER / 1000} s`);
  }
}

/** What a pipe that is ready takes without blocking (PIPE_BUF of linux/limits.h). */
const AT_ONCE = 4096;

/**
 * Writes all of `text`, however little the pipe takes at once. Throws CniError 5 when nobody reads for ten seconds, also where the pipe
 * blocks, which a runtime's does: a long text goes in pieces that fit, each after asking.
 */
export function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let done = 0; done < bytes.length;) {
    if (bytes.length > AT_ONCE && !becomesReady(fd, POLLOUT)) throw standstill(UNREAD);
    const piece = Math.min(bytes.length - done, AT_ONCE);
    done += patiently(fd, POLLOUT, UNREAD, () => writeSync(fd, bytes, done, piece));
  }
}

/**
 * The same pipe by a descriptor of our own that does not block; switching `fd` itself would switch the runtime's end with it.
 * What cannot be opened again (a socket, which is asked before each read) and what a person types into (a terminal) stays as it is.
 */
function withoutBlocking(fd: number): number {
  if (!fstatSync(fd).isFIFO()) return fd;
  try {
    return openSync(`/proc/self/fd/${fd}`, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return fd;
  }
}

function patiently(fd: number, event: number, silence: string, attempt: () => number): number {
  for (;;) {
    try {
      return attempt();
    } catch (thrown) {
      const { code } = thrown as NodeJS.ErrnoException;
      if (code !== 'EAGAIN') {
        throw new CniError(CniCode.IoFailure, `descriptor ${fd}: ${code ?? String(thrown)}`, {
          cause: thrown,
        });
      }
      if (!becomesReady(fd, event)) throw standstill(silence);
    }
  }
}

function endless(why: string): CniError {
  return new CniError(CniCode.IoFailure, `${UNENDING}: ${why}`);
}

function standstill(silence: string): CniError {
  return new CniError(CniCode.IoFailure, `${silence}: nothing moved for ${PATIENCE / 1000} s`);
}

/** struct pollfd: 0 fd i32 | 4 events i16 | 6 revents i16 */
function becomesReady(fd: number, event: number): boolean {
  const request = Buffer.alloc(8);
  request.writeInt32LE(fd, 0);
  request.writeInt16LE(event, 4);
  return libc().poll(request, 1, PATIENCE) !== 0;
}
