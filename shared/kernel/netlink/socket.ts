import { Attributes as SocketOption, Protocol } from 'netlink/dist/constants.js';
import { closeSync } from 'node:fs';
import { CniCode, CniError } from '../../cni/errors.ts';
import { deadlineIn } from '../deadline.ts';
import { KernelError, checked, isErrno, libc } from '../libc.ts';
import { type NetlinkRequest, type ReceivedMessage, decodeMessages, encodeRequests } from './message.ts';

export type { NetlinkMessage, NetlinkRequest } from './message.ts';

export interface NetlinkSocketOptions {
  /** How long to wait for an answer; default 5000. The kernel answers at once: only a lost answer takes longer. */
  readonly timeoutMs?: number;
}

/**
 * A synchronous netlink socket: sends datagrams, receives those of the kernel that answer them. What the messages mean
 * is conversation.ts' business. It belongs for life to the namespace that it was opened in.
 */
export class NetlinkSocket {
  readonly fd: number;
  /** Our address: the kernel puts it into every answer. */
  readonly port: number;
  readonly #timeoutMs: number;
  readonly #letGo: (fd: number) => void;
  #sequence = 1;
  #open = true;
  #buffer: Buffer | undefined;
  #shelf: DatagramArena | undefined;
  /** Of the datagram received last: struct sockaddr_nl, and its length as u32. */
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
    this.#letGo = protocol === Protocol.NETFILTER ? closeLater : closeSync;
    configure(fd, timeoutMs);
    this.port = bindAnywhere(fd);
  }

  /** Sends the requests in one datagram. @returns the sequence number of the first; the others follow it */
  send(requests: readonly NetlinkRequest[]): number {
    const first = this.#sequence;
    this.#sequence += requests.length;
    const datagram = encodeRequests(requests, first, this.port);
    if (datagram.length > SAFE_DATAGRAM) growSendBuffer(this.fd, datagram.length);
    const what = `send of ${requests.length} netlink messages`;
    checked(what, libc().sendto(this.fd, datagram, datagram.length, 0, KERNEL, KERNEL.length));
    return first;
  }

  /**
   * The next messages of the kernel for us with a sequence number in [first, first + count). Anything else on the socket
   * (another sender, an answer to a conversation given up) is dropped.
   * @returns views that hold until the next call
   * @throws CniError 11 when nothing comes within the timeout; KernelError ENOBUFS when answers were lost
   */
  receive(first: number, count: number): ReceivedMessage[] {
    const deadline = deadlineIn(this.#timeoutMs);
    do {
      const buffer = (this.#buffer ??= Buffer.allocUnsafeSlow(LARGEST_ANSWER));
      const length = this.#receiveInto(buffer);
      if (length === undefined) continue;
      const datagram = buffer.subarray(0, length);
      const ours = decodeMessages(datagram).filter(
        ({ sequence, port }) => port === this.port && sequence >= first && sequence < first + count,
      );
      if (ours.length > 0) return ours;
    } while (!deadline.passed());
    throw tooLate(this.#timeoutMs);
  }

  /**
   * The next datagram of the kernel that answers the request of this sequence number, undivided; what else comes is dropped. The kernel
   * puts messages of one request into a datagram, so the first one tells.
   * @returns memory of its own, which stays as it is
   * @throws as {@link receive}
   */
  receiveDatagram(sequence: number): Buffer {
    const shelf = (this.#shelf ??= new DatagramArena(LARGEST_ANSWER));
    const deadline = deadlineIn(this.#timeoutMs);
    do {
      const room = shelf.room();
      const length = this.#receiveInto(room) ?? 0;
      const isOurs =
        length >= HEADER && room.readUInt32LE(8) === sequence && room.readUInt32LE(12) === this.port;
      if (isOurs) return shelf.keep(length);
    } while (!deadline.passed());
    throw tooLate(this.#timeoutMs);
  }

  /** Whether another socket belongs to the same network namespace; false when this kernel (before 5.14) does not tell. */
  isInNamespaceOf(other: NetlinkSocket): boolean {
    const [own, others] = [this.fd, other.fd].map(namespaceCookie);
    return own !== undefined && own === others;
  }

  /**
   * A netfilter socket, whatever it was used for, lets go only when what anybody's last transaction deleted is gone, a grace period of
   * about 15 ms: in a DEL, each plugin would wait for what the one before it deleted. That waiting is left to the kernel.
   */
  close(): void {
    if (this.#open) this.#letGo(this.fd);
    this.#open = false;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** @returns undefined for what is not the kernel's or came with a signal or after the timeout */
  #receiveInto(buffer: Buffer): number | undefined {
    const { bytes: sender, length: senderLength } = this.#sender;
    senderLength[0] = SOCKADDR_NL;
    let length: number;
    try {
      length = checked(
        'recv',
        libc().recvfrom(this.fd, buffer, buffer.length, MSG_TRUNC, sender, senderLength),
      );
    } catch (thrown) {
      if (isErrno(thrown, 'EAGAIN', 'EINTR')) return undefined;
      throw thrown;
    }
    if (sender.readUInt32LE(4) !== 0) return undefined;
    if (length > buffer.length) throw new KernelError('recv', 90, { detail: `an answer of ${length} bytes` });
    return length;
  }
}

/** bits/socket.h, linux/netlink.h */
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_NETNS_COOKIE = 71;
const SOL_NETLINK = 270;
const MSG_TRUNC = 0x20;
const SOCKADDR_NL = 12;
/** struct nlmsghdr */
const HEADER = 16;
/** struct sockaddr_nl { family, padding, port 0 = the kernel, groups } */
const KERNEL = Uint8Array.of(AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
/** The kernel fills dump datagrams up to the size of the reader's buffer, but never beyond 32 KiB unless one message needs it. */
const LARGEST_ANSWER = 64 * 1024;
/** Default send buffers take a datagram of 200 KiB. */
const SAFE_DATAGRAM = 64 * 1024;
/** Room for the acknowledgements of some ten thousand messages (each occupies 768 bytes). It is a limit, not an allocation. */
const RECEIVE_BUFFER = 8 * 1024 * 1024;

function configure(fd: number, timeoutMs: number): void {
  const timeout = Buffer.alloc(16);
  timeout.writeBigInt64LE(BigInt(Math.floor(timeoutMs / 1000)), 0);
  timeout.writeBigInt64LE(BigInt(Math.round((timeoutMs % 1000) * 1000)), 8);
  setOption(fd, SOL_SOCKET, SO_RCVTIMEO, timeout);
  // Refused inside a user namespace: then the default size has to do.
  setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, int32(RECEIVE_BUFFER), 'EPERM');
  // All three are refinements (Linux 4.3, 4.12, 4.20): kernel's own error texts, short acknowledgements, filtered dumps.
  for (const option of [SocketOption.EXT_ACK, SocketOption.CAP_ACK, SocketOption.GET_STRICT_CHK]) {
    setOption(fd, SOL_NETLINK, option, int32(1), 'ENOPROTOOPT');
  }
}

function growSendBuffer(fd: number, bytes: number): void {
  setOption(fd, SOL_SOCKET, SO_SNDBUFFORCE, int32(bytes * 2), 'EPERM');
}

function setOption(fd: number, level: number, option: number, value: Buffer, ...tolerated: string[]): void {
  try {
    checked(`setsockopt(${level}, ${option})`, libc().setsockopt(fd, level, option, value, value.length));
  } catch (thrown) {
    if (!isErrno(thrown, ...tolerated)) throw thrown;
  }
}

/** Port 0: the kernel chooses one that no other socket of this namespace has. */
function bindAnywhere(fd: number): number {
  checked('bind(AF_NETLINK)', libc().bind(fd, KERNEL, SOCKADDR_NL));
  const own = Buffer.alloc(SOCKADDR_NL);
  checked('getsockname', libc().getsockname(fd, own, int32(SOCKADDR_NL)));
  return own.readUInt32LE(4);
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

function tooLate(timeoutMs: number): CniError {
  const cause = new KernelError('recv', 110);
  return new CniError(
    CniCode.TryAgainLater,
    `the kernel did not answer a netlink request within ${timeoutMs} ms`,
    { cause },
  );
}

/**
 * Memory for datagrams that stay: one behind the other in large pieces, each beginning at a multiple of 4, so that its lengths can be
 * read as numbers of 32 bits. What is not written to costs nothing.
 */
export class DatagramArena {
  readonly #largest: number;
  #piece: Buffer = Buffer.alloc(0);
  #used = 0;

  /** @param largest bytes that a datagram may have */
  constructor(largest: number) {
    this.#largest = largest;
  }

  /** Room for the next datagram; the same again, until something is kept. */
  room(): Buffer {
    if (this.#piece.length - this.#used < this.#largest) {
      this.#piece = Buffer.allocUnsafeSlow(this.#largest * PIECE);
      this.#used = 0;
    }
    return this.#piece.subarray(this.#used, this.#used + this.#largest);
  }

  /** The first bytes of the room, which nobody else gets any more. */
  keep(length: number): Buffer {
    const start = this.#used;
    this.#used += (length + 3) & ~3;
    return this.#piece.subarray(start, start + length);
  }
}

/** Largest datagrams in a piece. */
const PIECE = 16;

/**
 * Closes a descriptor whose release waits in the kernel, without waiting for it: the last descriptor of a netfilter socket, at the end of the
 * process too, waits for a grace period (about 15 ms) while anything deleted from nf_tables is on its way out.
 *
 * The file is registered with an io_uring of its own, which then holds it as well, and both descriptors are closed. The kernel takes a ring
 * apart in a worker thread (io_ring_exit_work), and there the waiting happens. Nothing is ever submitted to the ring.
 */
export function closeLater(fd: number): void {
  // Refused where io_uring is not to be had (kernel.io_uring_disabled, seccomp, before Linux 5.1): then the close is an ordinary one.
  const ring = libc().io_uring_setup(ONE_ENTRY, Buffer.alloc(IO_URING_PARAMS));
  if (ring >= 0) {
    const files = Buffer.alloc(4);
    files.writeInt32LE(fd);
    libc().io_uring_register(ring, IORING_REGISTER_FILES, files, 1);
  }
  closeSync(fd);
  if (ring >= 0) closeSync(ring);
}

/** The smallest ring there is. */
const ONE_ENTRY = 1;
/** linux/io_uring.h: sizeof(struct io_uring_params), all zero: no polling thread, no flags. The kernel fills in what the ring can do. */
const IO_URING_PARAMS = 120;
/** Its argument: i32 descriptors[]. */
const IORING_REGISTER_FILES = 2;
