import { closeSync } from 'node:fs';
import type { Deadline } from './deadline.ts';
import { checked, isErrno, KernelError, libc } from './libc.ts';

/**
 * A synchronous stream socket of the Unix domain, as a client: for daemons of this host that speak a protocol of their own.
 * Every call ends at the deadline that it is given.
 */
export class UnixSocket {
  readonly #fd: number;
  readonly #path: string;
  readonly #chunk = Buffer.allocUnsafeSlow(CHUNK);
  #open = true;

  /**
   * @param path of the socket in the file system; one that begins with NUL is an abstract name of this network namespace
   * @throws KernelError ENOENT, ECONNREFUSED when nobody listens; EACCES; EAGAIN when the listener accepts nobody in time
   */
  static connect(path: string, deadline: Deadline): UnixSocket {
    const fd = checked('socket(AF_UNIX)', libc().socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    try {
      // Bounds connect, which waits while the listener's queue is full, and every send.
      setSendTimeout(fd, deadline);
      const address = socketAddress(path);
      checked(`connect(${printable(path)})`, libc().connect(fd, address, address.length));
      return new UnixSocket(fd, path);
    } catch (thrown) {
      closeSync(fd);
      throw thrown;
    }
  }

  /** Use {@link UnixSocket.connect}. */
  private constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
  }

  /** All of it. @throws KernelError EPIPE when the other side has closed, EAGAIN when it reads nothing in time */
  write(bytes: Uint8Array, deadline: Deadline): void {
    setSendTimeout(this.#fd, deadline);
    for (let rest = bytes; rest.length > 0;) {
      const sent = this.#repeat('send', () => libc().send(this.#fd, rest, rest.length, MSG_NOSIGNAL));
      rest = rest.subarray(sent);
    }
  }

  /** What has come, at least one byte. @throws KernelError ECONNRESET when the other side has closed, ETIMEDOUT */
  read(deadline: Deadline): Buffer {
    this.#wait(deadline);
    const length = this.#repeat('recv', () => libc().recv(this.#fd, this.#chunk, CHUNK, 0));
    if (length === 0) throw new KernelError(this.#what('recv'), ECONNRESET);
    return Buffer.from(this.#chunk.subarray(0, length));
  }

  close(): void {
    if (this.#open) closeSync(this.#fd);
    this.#open = false;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** struct pollfd { int fd; short events, revents } */
  #wait(deadline: Deadline): void {
    const polled = Buffer.alloc(8);
    polled.writeInt32LE(this.#fd, 0);
    polled.writeInt16LE(POLLIN, 4);
    do {
      const patience = Math.max(0, Math.ceil(deadline.remainingMs()));
      if (this.#repeat('poll', () => libc().poll(polled, 1, patience)) > 0) return;
    } while (!deadline.passed());
    throw new KernelError(this.#what('recv'), ETIMEDOUT);
  }

  /** Once more when a signal came between. */
  #repeat(syscall: string, call: () => number): number {
    for (;;) {
      try {
        return checked(this.#what(syscall), call());
      } catch (thrown) {
        if (!isErrno(thrown, 'EINTR')) throw thrown;
      }
    }
  }

  #what(syscall: string): string {
    return `${syscall}(${printable(this.#path)})`;
  }
}

/** bits/socket.h, bits/poll.h */
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDTIMEO = 21;
const MSG_NOSIGNAL = 0x4000;
const POLLIN = 1;
const ECONNRESET = 104;
const ETIMEDOUT = 110;
const ENAMETOOLONG = 36;
const CHUNK = 16 * 1024;
/** sun_path of linux/un.h */
const LONGEST_PATH = 108;

/**
 * struct sockaddr_un:
 * ```
 *  0                2
 * +----------------+------------------------------------------+
 * | family = 1 u16 | path and a NUL; or NUL and abstract name |
 * +----------------+------------------------------------------+
 * ```
 */
function socketAddress(path: string): Buffer {
  const name = Buffer.from(path.startsWith('\0') ? path : `${path}\0`);
  if (name.length > LONGEST_PATH) throw new KernelError(`connect(${printable(path)})`, ENAMETOOLONG);
  return Buffer.concat([Buffer.of(AF_UNIX, 0), name]);
}

/** struct timeval; zero would mean for ever. */
function setSendTimeout(fd: number, deadline: Deadline): void {
  const milliseconds = Math.max(1, Math.ceil(deadline.remainingMs()));
  const value = Buffer.alloc(16);
  value.writeBigInt64LE(BigInt(Math.floor(milliseconds / 1000)), 0);
  value.writeBigInt64LE(BigInt((milliseconds % 1000) * 1000), 8);
  checked('setsockopt(SO_SNDTIMEO)', libc().setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, value, value.length));
}

function printable(path: string): string {
  return path.replace(/^\0/, '@');
}
