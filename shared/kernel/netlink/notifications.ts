import { closeSync } from 'node:fs';
import { checked, isErrno, libc } from '../libc.ts';
import { isReadable } from '../poll.ts';
import { decodeMessages, type ReceivedMessage } from './message.ts';

/** Receives the notifications of one netlink multicast group of the network namespace that it is opened in. Never waits. */
export class NetlinkNotifications {
  /** Readable when something has arrived. */
  readonly fd: number;
  readonly #buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES);

  /** @param protocol NETLINK_* @param group number of the group, from 1 */
  static open(protocol: number, group: number): NetlinkNotifications {
    const fd = checked('socket(AF_NETLINK)', libc().socket(AF_NETLINK, SOCK_FLAGS, protocol));
    try {
      // struct sockaddr_nl { u16 family, u16 padding, u32 port: chosen by the kernel, u32 groups }
      const address = Buffer.alloc(12);
      address.writeUInt16LE(AF_NETLINK);
      checked('bind(AF_NETLINK)', libc().bind(fd, address, address.length));
      enlargeBuffer(fd);
      const number = Buffer.alloc(4);
      number.writeUInt32LE(group);
      checked(
        'setsockopt(NETLINK_ADD_MEMBERSHIP)',
        libc().setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, number, number.length),
      );
      return new NetlinkNotifications(fd);
    } catch (thrown) {
      closeSync(fd);
      throw thrown;
    }
  }

  /** Use {@link NetlinkNotifications.open}. */
  private constructor(fd: number) {
    this.fd = fd;
  }

  /**
   * Passes on what has arrived; the messages are views that are valid during the call.
   * @returns false if the kernel has dropped some because they were not read in time
   */
  drain(visit: (message: ReceivedMessage) => void): boolean {
    let complete = true;
    // Nearly always there is nothing, and an error for that would cost more than this question.
    for (let read = 0; read < MOST_DATAGRAMS && isReadable(this.fd, 0); read++) {
      try {
        const length = checked('recv', libc().recv(this.fd, this.#buffer, this.#buffer.length, MSG_DONTWAIT));
        decodeMessages(this.#buffer.subarray(0, length)).forEach(visit);
      } catch (thrown) {
        if (isErrno(thrown, 'EAGAIN', 'EINTR')) return complete;
        if (!isErrno(thrown, 'ENOBUFS')) throw thrown;
        complete = false;
      }
    }
    return complete;
  }

  close(): void {
    closeSync(this.fd);
  }
}

/** So that nothing is dropped while the caller works: what it must look for after that would keep it working. */
function enlargeBuffer(fd: number): void {
  const size = Buffer.alloc(4);
  size.writeUInt32LE(RECEIVE_BUFFER);
  try {
    checked(
      'setsockopt(SO_RCVBUFFORCE)',
      libc().setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, size, size.length),
    );
  } catch (thrown) {
    // Inside a user namespace; the default size is used then.
    if (!isErrno(thrown, 'EPERM')) throw thrown;
  }
}

/** Enough for a commit of some ten thousand rules. It is a limit, not an allocation. */
const RECEIVE_BUFFER = 8 * 1024 * 1024;
/** sys/socket.h, linux/netlink.h */
const AF_NETLINK = 16;
/** SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK */
const SOCK_FLAGS = 3 | 0o2000000 | 0o4000;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_ADD_MEMBERSHIP = 1;
const MSG_DONTWAIT = 0x40;
/** Above what the kernel puts into one notification (NLMSG_GOODSIZE, and one rule of at most 64 KiB). */
const BUFFER_BYTES = 128 * 1024;
/** A program that commits without end must not keep the caller here. */
const MOST_DATAGRAMS = 1_000;
