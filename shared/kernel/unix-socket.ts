import { chmodSync, closeSync, renameSync, rmSync } from 'node:fs';
import type { Deadline } from './deadline.ts';
import { isErrno } from './errno.ts';
import { addressOf, checked, checkedUnlessWaiting, libc } from './libc.ts';
import { isReadable, waitForRoom } from './poll.ts';

/**
 * Unix sockets without the event loop, which cannot receive descriptors (SCM_RIGHTS). All descriptors are close-on-exec and non-blocking.
 */

/**
 * Listens on a stream socket at `path`, which only its owner can connect to (0600). The path changes in one step: what listened there before
 * gets no further connection.
 * @throws KernelError, or the fs error
 */
export function listenUnix(path: string, backlog: number): number {
  const temporary = `${path}.${process.pid}`;
  rmSync(temporary, { force: true });
  const fd = open(SOCK_STREAM);
  try {
    const address = addressAt(temporary);
    checked(`bind(${temporary})`, libc().bind(fd, address, address.length));
    chmodSync(temporary, 0o600);
    checked('listen', libc().listen(fd, backlog));
    renameSync(temporary, path);
    return fd;
  } catch (thrown) {
    closeSync(fd);
    rmSync(temporary, { force: true });
    throw thrown;
  }
}

/** @returns undefined when no connection waits any more */
export function acceptUnix(listener: number): number | undefined {
  return checkedUnlessWaiting('accept4', libc().accept4(listener, null, null, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

/** User id of the process at the other end, when it connected or listened. */
export function peerUid(fd: number): number {
  /** struct ucred { i32 pid, u32 uid, u32 gid } */
  const credentials = Buffer.alloc(12);
  const length = Buffer.of(12, 0, 0, 0);
  checked('getsockopt(SO_PEERCRED)', libc().getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length));
  return credentials.readUInt32LE(4);
}

/**
 * Fills `buffer` from its start.
 * @returns the descriptor that came along, if any: the caller closes it; undefined when the connection ended first or the time was over
 */
export function receiveAll(fd: number, buffer: Buffer, wait: Deadline): { passed?: number } | undefined {
  let passed: number | undefined;
  for (let done = 0; done < buffer.length;) {
    const got = unlessGone(() => receive(fd, buffer.subarray(done)));
    if (got === 'gone') {
      if (passed !== undefined) closeSync(passed);
      return undefined;
    }
    if (got === undefined && !wait.passed()) {
      isReadable(fd, wait.remainingMs());
      continue;
    }
    // Another descriptor than the first is not expected: close it.
    if (got?.passed !== undefined) {
      if (passed === undefined) passed = got.passed;
      else closeSync(got.passed);
    }
    const isLate = got !== undefined && done + got.length < buffer.length && wait.passed();
    if (got === undefined || got.length === 0 || isLate) {
      if (passed !== undefined) closeSync(passed);
      return undefined;
    }
    done += got.length;
  }
  return passed === undefined ? {} : { passed };
}

/** @returns false when the other end is gone or does not read in time */
export function sendAll(fd: number, bytes: Buffer, wait: Deadline): boolean {
  for (let done = 0; done < bytes.length;) {
    const rest = bytes.subarray(done);
    const sent = unlessGone(() =>
      checkedUnlessWaiting('send', libc().send(fd, rest, rest.length, MSG_NOSIGNAL)),
    );
    if (sent === 'gone' || (sent === undefined && wait.passed())) return false;
    done += sent ?? 0;
    if (sent === undefined) waitForRoom(fd, wait.remainingMs());
  }
  return true;
}

/** Sends one datagram to a socket by its path; `@` in front stands for an abstract name (sd_notify(3)). */
export function sendDatagram(path: string, text: string): void {
  const fd = open(SOCK_DGRAM);
  try {
    const bytes = Buffer.from(text);
    const address = addressAt(path.replace(/^@/, '\0'));
    checked(`send(${path})`, libc().sendto(fd, bytes, bytes.length, MSG_NOSIGNAL, address, address.length));
  } finally {
    closeSync(fd);
  }
}

/** bits/socket.h, asm-generic/socket.h */
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SCM_RIGHTS = 1;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;

function open(type: number): number {
  return checked('socket(AF_UNIX)', libc().socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

/** struct sockaddr_un { u16 family, path up to 108 bytes } */
function addressAt(path: string): Buffer {
  const name = Buffer.from(path);
  if (name.length > 107) throw new RangeError(`socket path longer than 107 bytes: ${path}`);
  return Buffer.concat([Buffer.of(AF_UNIX, 0), name, Buffer.of(...(path.startsWith('\0') ? [] : [0]))]);
}

function unlessGone<T>(call: () => T): T | 'gone' {
  try {
    return call();
  } catch (thrown) {
    if (isErrno(thrown, 'EPIPE', 'ECONNRESET')) return 'gone';
    throw thrown;
  }
}

/**
 *    struct msghdr (64 bits)                                                                  struct cmsghdr
 *    0          8           16         24        32            40               48      56     0        8           12         16
 *    +----------+-----------+----------+---------+-------------+----------------+-------+      +--------+-----------+----------+--------+
 *    | name ptr | length u32| iovec ptr| count   | control ptr | control length | flags |      | length | level i32 | type i32 | fd i32 |
 *    +----------+-----------+----------+---------+-------------+----------------+-------+      +--------+-----------+----------+--------+
 */
function receive(fd: number, into: Buffer): { length: number; passed?: number } | undefined {
  const iovec = Buffer.alloc(16);
  const control = Buffer.alloc(24);
  const message = Buffer.alloc(56);
  iovec.writeBigUInt64LE(addressOf(into), 0);
  iovec.writeBigUInt64LE(BigInt(into.length), 8);
  message.writeBigUInt64LE(addressOf(iovec), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(addressOf(control), 32);
  message.writeBigUInt64LE(BigInt(control.length), 40);
  const length = checkedUnlessWaiting('recvmsg', libc().recvmsg(fd, message, MSG_CMSG_CLOEXEC));
  if (length === undefined) return undefined;
  const hasDescriptor =
    message.readBigUInt64LE(40) >= 20n &&
    control.readInt32LE(8) === SOL_SOCKET &&
    control.readInt32LE(12) === SCM_RIGHTS;
  return { length, ...(hasDescriptor && { passed: control.readInt32LE(16) }) };
}
