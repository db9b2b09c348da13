import { closeSync } from 'node:fs';
import { addressOf, checked, libc } from './libc.ts';
import { isErrno } from './errno.ts';

/**
 * Closes a descriptor whose release waits in the kernel, without waiting for it: the last descriptor of a netfilter socket, at the end of the
 * process too, waits for a grace period (about 15 ms) while anything deleted from nf_tables is on its way out.
 *
 * The descriptor is sent, together with both ends of a unix socket pair, through that very pair, and all three are closed: a
 * cycle that nothing refers to any more. The kernel's collector of such cycles takes it apart, since Linux 6.10 in a thread of
 * its own, and there the waiting happens. Before 6.10 it collects within our own close, which costs what a plain close costs.
 */
export function closeLater(fd: number): void {
  const pair = socketPair();
  if (pair !== undefined) {
    sendDescriptors(pair[0], [...pair, fd]);
    for (const end of pair) closeSync(end);
  }
  closeSync(fd);
}

/** bits/socket.h */
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;

/** @returns undefined when no descriptors are left: then it is an ordinary close */
function socketPair(): readonly [number, number] | undefined {
  const pair = Buffer.alloc(8);
  try {
    checked('socketpair', libc().socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair));
  } catch (thrown) {
    if (isErrno(thrown, 'EMFILE', 'ENFILE', 'ENOMEM')) return undefined;
    throw thrown;
  }
  return [pair.readInt32LE(0), pair.readInt32LE(4)];
}

/**
 * struct msghdr (bits/socket.h, 64 bit):
 * ```
 *  0          8              16       24       32          40             48
 * | name      | namelen, pad | iov    | iovlen | control   | controllen   | flags, pad |
 * ```
 * its one struct iovec { base, len }, and one struct cmsghdr { len u64, level i32, type i32, descriptors i32[] }.
 */
function sendDescriptors(socket: number, descriptors: readonly number[]): void {
  const data = Buffer.of(0);
  const vector = Buffer.alloc(16);
  vector.writeBigUInt64LE(addressOf(data), 0);
  vector.writeBigUInt64LE(1n, 8);
  const control = Buffer.alloc((16 + 4 * descriptors.length + 7) & ~7);
  control.writeBigUInt64LE(BigInt(16 + 4 * descriptors.length), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  descriptors.forEach((descriptor, at) => control.writeInt32LE(descriptor, 16 + 4 * at));
  const message = Buffer.alloc(56);
  message.writeBigUInt64LE(addressOf(vector), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(addressOf(control), 32);
  message.writeBigUInt64LE(BigInt(control.length), 40);
  // Refused (ETOOMANYREFS, ENOBUFS): then the close that follows is an ordinary one.
  libc().sendmsg(socket, message, 0);
}
