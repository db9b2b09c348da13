import { trace } from '../../process/trace.ts';
import { Attributes as SocketOption, Protocol } from 'netlink/dist/constants.js';
import { closeSync } from 'node:fs';
import { deadlineIn, timeoutError, type Deadline } from '../deadline.ts';
import { KernelError, checked, checkedUnlessWaiting, isErrno, libc } from '../libc.ts';
import { isReadable } from '../poll.ts';
import { type NetlinkRequest, type ReceivedMessage, decodeMessages, encodeRequests } from './message.ts';

export type { NetlinkMessage, NetlinkRequest } from './message.ts';

export interface NetlinkSocketOptions {
  /** Longest wait for an answer, within the call's deadline; default 5000. The kernel answers at once unless the answer was lost. */
  readonly timeoutMs?: number;
}

/**
 * A synchronous netlink socket: sends datagrams and receives the kernel's answers, which conversation.ts interprets. A socket always belongs
 * to the namespace that it was opened in. It gets its port with the first request.
 */
export class NetlinkSocket {
  readonly fd: number;
  readonly #timeoutMs: number;
  readonly #closeFd: (fd: number) => void;
  #sequence = 1;
  #open = true;
  /** Sender of the last datagram: struct sockaddr_nl, and its length as u32. */
  readonly #sender = { bytes: Buffer.alloc(SOCKADDR_NL), length: Buffer.alloc(4) };

  /** @param protocol NETLINK_*: 0 route, 12 netfilter */
  static open(protocol: number, options: NetlinkSocketOptions = {}): NetlinkSocket {
    const fd = checked('socket(AF_NETLINK)', libc().socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
    try {
      return new NetlinkSocket(fd, protocol, options.timeoutMs ?? 5000);
    } catch (thrown) {
      closeSync(fd);
      throw thrown;
    }
  }

  /** Use {@link NetlinkSocket.open}. */
  private constructor(fd: number, protocol: number, timeoutMs: number) {
    this.fd = fd;
    this.#timeoutMs = timeoutMs;
    this.#closeFd = protocol === Protocol.NETFILTER ? closeLater : closeSync;
    configure(fd, protocol);
  }

  /** Sends the requests in one datagram. @returns the sequence number of the first; the others follow it */
  send(requests: readonly NetlinkRequest[]): number {
    trace(() => `netlink: ${requests.map(({ what }) => what).join(', ')}`);
    const first = this.#sequence;
    this.#sequence += requests.length;
    const datagram = encodeRequests(requests, first);
    if (datagram.length > SAFE_DATAGRAM) growBuffer(this.fd, SO_SNDBUFFORCE, datagram.length * 2);
    if (requests.length > SAFE_ANSWERS) growBuffer(this.fd, SO_RCVBUFFORCE, RECEIVE_BUFFER);
    const what = `send of ${requests.length} netlink messages`;
    checked(what, libc().sendto(this.fd, datagram, datagram.length, 0, KERNEL, KERNEL.length));
    return first;
  }

  /**
   * The next messages of the kernel for this socket with a sequence number in [first, first + count). Anything else (another sender, an
   * answer to an earlier request) is dropped.
   * @returns views that are valid until anything is received again, over whatever socket
   * @throws CniError 11 when nothing comes within the timeout; KernelError ENOBUFS when answers were lost
   */
  receive(first: number, count: number): ReceivedMessage[] {
    const wait = deadlineIn(this.#timeoutMs);
    do {
      const datagram = this.#receive(wait);
      if (datagram === undefined) continue;
      const ours = decodeMessages(datagram).filter(
        ({ sequence }) => sequence >= first && sequence < first + count,
      );
      if (ours.length > 0) return ours;
    } while (!wait.passed());
    throw noAnswer(wait);
  }

  /**
   * The next datagram of the kernel that answers the request with this sequence number; others are dropped. All messages of a datagram
   * belong to one request, so only the first one is checked.
   * @returns memory of its own, at an address that is a multiple of 4
   * @throws as {@link receive}
   */
  receiveDatagram(sequence: number): Buffer {
    const wait = deadlineIn(this.#timeoutMs);
    do {
      const datagram = this.#receive(wait);
      if (datagram === undefined || datagram.length < HEADER) continue;
      if (datagram.readUInt32LE(8) === sequence) return Buffer.from(datagram);
    } while (!wait.passed());
    throw noAnswer(wait);
  }

  /** Whether another socket belongs to the same network namespace; false on kernels before 5.14, which do not say. */
  isInNamespaceOf(other: NetlinkSocket): boolean {
    const [own, others] = [this.fd, other.fd].map(namespaceCookie);
    return own !== undefined && own === others;
  }

  /**
   * Closing a netfilter socket waits for an RCU grace period (about 15 ms) while deletions of any process are pending: in DEL, each plugin
   * would wait for the deletions of the one before it, see {@link closeLater}.
   */
  close(): void {
    if (this.#open) this.#closeFd(this.fd);
    this.#open = false;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** @returns a view of {@link received}; undefined for a datagram that is not the kernel's, after a signal, and after the timeout */
  #receive(wait: Deadline): Buffer | undefined {
    const buffer = (received ??= Buffer.allocUnsafeSlow(LARGEST_ANSWER));
    const { bytes: sender, length: senderLength } = this.#sender;
    senderLength[0] = SOCKADDR_NL;
    const flags = MSG_TRUNC | MSG_DONTWAIT;
    const length = checkedUnlessWaiting(
      'recv',
      libc().recvfrom(this.fd, buffer, buffer.length, flags, sender, senderLength),
    );
    if (length === undefined) {
      // Rare: most answers are there when the request returns.
      isReadable(this.fd, wait.remainingMs());
      return undefined;
    }
    if (sender.readUInt32LE(4) !== 0) return undefined;
    if (length > buffer.length) throw new KernelError('recv', 90, { detail: `an answer of ${length} bytes` });
    return buffer.subarray(0, length);
  }
}

/**
 * One for all sockets: a buffer for each is memory outside V8's heap, and a process that serves many calls then runs a full garbage
 * collection every few of them.
 */
let received: Buffer | undefined;

/** bits/socket.h, linux/netlink.h */
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_NETNS_COOKIE = 71;
const SOL_NETLINK = 270;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const SOCKADDR_NL = 12;
/** struct nlmsghdr */
const HEADER = 16;
/** struct sockaddr_nl { family, padding, port 0 = the kernel, groups } */
const KERNEL = Uint8Array.of(AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
/** The kernel fills dump datagrams up to the size of the reader's buffer, but never beyond 32 KiB unless one message needs it. */
const LARGEST_ANSWER = 64 * 1024;
/** Default send buffers take a datagram of 200 KiB. */
const SAFE_DATAGRAM = 64 * 1024;
/** Answers that fit into the smallest receive buffer that is in use (208 KiB), with the kernel's overhead. */
const SAFE_ANSWERS = 32;
/** Enough for the acknowledgements of ten thousand messages (768 bytes each). It is a limit, not an allocation. */
const RECEIVE_BUFFER = 8 * 1024 * 1024;

/** All are optional (Linux 4.3, 4.12, 4.20): the kernel's error texts, short acknowledgements, filtered dumps. */
function configure(fd: number, protocol: number): void {
  const options = [SocketOption.EXT_ACK, SocketOption.CAP_ACK];
  if (protocol === Protocol.ROUTE) options.push(SocketOption.GET_STRICT_CHK);
  for (const option of options) setOption(fd, SOL_NETLINK, option, int32(1), 'ENOPROTOOPT');
}

/** Refused inside a user namespace; the default size is used then. */
function growBuffer(fd: number, option: number, bytes: number): void {
  setOption(fd, SOL_SOCKET, option, int32(bytes), 'EPERM');
}

function setOption(fd: number, level: number, option: number, value: Buffer, ...tolerated: string[]): void {
  try {
    checked(`setsockopt(${level}, ${option})`, libc().setsockopt(fd, level, option, value, value.length));
  } catch (thrown) {
    if (!isErrno(thrown, ...tolerated)) throw thrown;
  }
}

function namespaceCookie(fd: number): bigint | undefined {
  const cookie = Buffer.alloc(8);
  try {
    checked('getsockopt', libc().getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie, int32(cookie.length)));
    return cookie.readBigUInt64LE();
  } catch (thrown) {
    if (isErrno(thrown, 'ENOPROTOOPT')) return undefined;
    throw thrown;
  }
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

function noAnswer(wait: Deadline): Error {
  return timeoutError("waiting for the kernel's answer to a netlink request", wait, {
    cause: new KernelError('recv', 110),
  });
}

/**
 * Closes a netfilter socket after the call's answer: while deletions in nf_tables are pending, the last close of one waits for an RCU grace
 * period (about 15 ms), so that several in one call would wait several times. The end of the process closes them; a process that serves
 * many calls calls {@link closePending} between two of them.
 */
export function closeLater(fd: number): void {
  if (pending.length >= MAX_PENDING) closePending(MAX_PENDING / 2);
  pending.push(fd);
}

/** Closes what {@link closeLater} was given. @param keep so many of the newest stay open: their deletions may be pending */
export function closePending(keep = 0): void {
  for (const fd of pending.splice(0, Math.max(0, pending.length - keep))) closeSync(fd);
}

const pending: number[] = [];
/** More than one call opens. */
const MAX_PENDING = 64;
