import { isIPv6, type Socket } from 'node:net';
import { checked, isErrno, libc } from '../../shared/kernel/libc.ts';

export interface Destination {
  readonly address: string;
  readonly port: number;
}

/** linux/in.h, linux/in6.h, linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h */
const SOL_IP = 0;
const SOL_IPV6 = 41;
const SO_ORIGINAL_DST = 80;
const IP6T_SO_ORIGINAL_DST = 80;
const SOCKADDR_IN6_BYTES = 28;

/**
 * Where a connection was going before a REDIRECT rule brought it here: conntrack's note of it, as Envoy's original_dst filter
 * reads it. Undefined when the connection was not redirected.
 */
export function originalDestination(socket: Socket): Destination | undefined {
  const ipv6 = isIPv6(socket.localAddress ?? '') && !isMapped(socket.localAddress ?? '');
  const sockaddr = Buffer.alloc(SOCKADDR_IN6_BYTES);
  const length = Buffer.from(new Uint32Array([SOCKADDR_IN6_BYTES]).buffer);
  const [level, option] = ipv6 ? [SOL_IPV6, IP6T_SO_ORIGINAL_DST] : [SOL_IP, SO_ORIGINAL_DST];
  try {
    checked(
      'getsockopt(SO_ORIGINAL_DST)',
      libc().getsockopt(descriptor(socket), level, option, sockaddr, length),
    );
  } catch (thrown) {
    // ENOENT: conntrack has no entry. ENOPROTOOPT: it is not even loaded here, so nothing can have been redirected.
    if (isErrno(thrown, 'ENOENT', 'ENOPROTOOPT')) return undefined;
    throw thrown;
  }
  return ipv6 ? parseIn6(sockaddr) : parseIn4(sockaddr);
}

/**
 *     sockaddr_in      0       2       4               8
 *                      +-------+-------+---------------+
 *                      | AF    |port BE| address       |
 *                      +-------+-------+---------------+
 */
export function parseIn4(sockaddr: Buffer): Destination {
  return { address: sockaddr.subarray(4, 8).join('.'), port: sockaddr.readUInt16BE(2) };
}

/**
 *     sockaddr_in6     0       2       4           8                              24        28
 *                      +-------+-------+-----------+------------------------------+---------+
 *                      | AF    |port BE| flow info | address                      | scope   |
 *                      +-------+-------+-----------+------------------------------+---------+
 */
export function parseIn6(sockaddr: Buffer): Destination {
  const groups = Array.from({ length: 8 }, (_, index) => sockaddr.readUInt16BE(8 + 2 * index).toString(16));
  return {
    address: new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1),
    port: sockaddr.readUInt16BE(2),
  };
}

/** Node has no public way to a socket's descriptor; the handle's `fd` has been there since libuv came. */
function descriptor(socket: Socket): number {
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  return fd;
}

function isMapped(address: string): boolean {
  return address.startsWith('::ffff:');
}
