import { Protocol } from 'netlink/dist/constants.js';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { addressFromBytes, formatAddress } from '../net/address.ts';
import { isErrno } from './errno.ts';
import { attempt } from './files.ts';
import { Attributes } from './netlink/attributes.ts';
import { dump } from './netlink/conversation.ts';
import { AF_INET, AF_INET6 } from './netlink/ip.ts';
import { NetlinkSocket, type NetlinkRequest } from './netlink/socket.ts';

/** A TCP socket that listens, or a UDP socket that is not connected. */
export interface ListeningSocket {
  readonly protocol: 'tcp' | 'udp';
  /** `0.0.0.0` or `::` for any. IPv4-mapped addresses (::ffff:192.0.2.1) are given as IPv4. */
  readonly address: string;
  readonly port: number;
  /** Only for `::`: IPv4 does not reach it (IPV6_V6ONLY). False where the kernel does not say. */
  readonly ipv6Only: boolean;
  /** As in the link /proc/PID/fd/N: `socket:[inode]`. */
  readonly inode: number;
}

/**
 * The listening sockets of the network namespace that this thread is in, IPv4 and IPv6. Asks as `ss` does, over NETLINK_SOCK_DIAG: to read
 * /proc/net/tcp takes 3 ms per family, since the kernel goes through its table of connections.
 * @throws KernelError
 */
export function listeningSockets(protocol: 'tcp' | 'udp'): ListeningSocket[] {
  try {
    using socket = NetlinkSocket.open(Protocol.SOCK_DIAG);
    return [AF_INET, AF_INET6].flatMap((family) =>
      dump(socket, diagRequest(protocol, family)).map(({ body }) => decodeDiag(protocol, body)),
    );
  } catch (thrown) {
    // A kernel without inet_diag, tcp_diag or udp_diag (all modules).
    if (isErrno(thrown, 'ENOENT', 'EPROTONOSUPPORT')) return listeningInProc(protocol);
    throw thrown;
  }
}

/** Inodes of the process' sockets; none for one that ended, or whose descriptors this process must not read. */
export function socketInodesOf(pid: number | string): number[] {
  const folder = `/proc/${pid}/fd`;
  return (attempt(() => readdirSync(folder)) ?? []).flatMap((fd) => {
    const inode = /^socket:\[(\d+)\]$/.exec(attempt(() => readlinkSync(`${folder}/${fd}`)) ?? '')?.[1];
    return inode === undefined ? [] : [Number(inode)];
  });
}

/** The processes that have these sockets, by inode. Searches /proc; processes end while they are looked at. */
export function processesWithSockets(
  inodes: ReadonlySet<number>,
): Map<number, { readonly pid: number; readonly name: string }> {
  const found = new Map<number, { pid: number; name: string }>();
  for (const pid of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    if (found.size === inodes.size) break;
    for (const inode of socketInodesOf(pid)) {
      if (!inodes.has(inode) || found.has(inode)) continue;
      const name = attempt(() => readFileSync(`/proc/${pid}/comm`, 'latin1').trim()) ?? '?';
      // A process can give itself any name; a warning is one line.
      found.set(inode, { pid: Number(pid), name: name.replaceAll(/[^\x20-\x7e]/g, '?') });
    }
  }
  return found;
}

/** The same as {@link listeningSockets} from /proc/net; without {@link ListeningSocket.ipv6Only}. */
export function listeningInProc(protocol: 'tcp' | 'udp'): ListeningSocket[] {
  return ['', '6'].flatMap((suffix) => {
    // Without IPv6 in the kernel the second file is missing.
    const text = attempt(() => readFileSync(`/proc/thread-self/net/${protocol}${suffix}`, 'latin1')) ?? '';
    return text.split('\n').flatMap((line) => decodeProcLine(protocol, line) ?? []);
  });
}

/** linux/inet_diag.h, linux/sock_diag.h, net/tcp_states.h: an unconnected UDP socket has state TCP_CLOSE. */
const SOCK_DIAG_BY_FAMILY = 20;
const INET_DIAG_SKV6ONLY = 11;
const STATE = { tcp: 10, udp: 7 };
const IPPROTO = { tcp: 6, udp: 17 };

/**
 * struct inet_diag_req_v2, 56 bytes:
 *
 *    0        1          2            3     4                    8                        56
 *    +--------+----------+------------+-----+--------------------+------------------------+
 *    | family | protocol | extensions | pad | states, a bit each | id, ignored in a dump  |
 *    +--------+----------+------------+-----+--------------------+------------------------+
 */
function diagRequest(protocol: 'tcp' | 'udp', family: number): NetlinkRequest {
  const body = Buffer.alloc(56);
  body.set([family, IPPROTO[protocol]]);
  body.writeUInt32LE(1 << STATE[protocol], 4);
  return { what: `SOCK_DIAG_BY_FAMILY ${protocol}`, type: SOCK_DIAG_BY_FAMILY, flags: 0, body };
}

/**
 * struct inet_diag_msg, 72 bytes, then attributes (INET_DIAG_SKV6ONLY is a u8, for IPv6); ports and addresses in network byte order, an IPv4 address in the first four bytes:
 *
 *    0        1       2       3         4       6       8          24         40            68      72
 *    +--------+-------+-------+---------+-------+-------+----------+----------+- - - - - - -+-------+- - - -
 *    | family | state | timer | retrans | sport | dport | src      | dst      | …           | inode | attrs
 *    +--------+-------+-------+---------+-------+-------+----------+----------+- - - - - - -+-------+- - - -
 */
function decodeDiag(protocol: 'tcp' | 'udp', message: Buffer): ListeningSocket {
  const bytes = message.subarray(8, message[0] === AF_INET ? 12 : 24);
  return {
    protocol,
    address: addressText(bytes),
    port: message.readUInt16BE(4),
    ipv6Only: new Attributes(message, 72).u8(INET_DIAG_SKV6ONLY) === 1,
    inode: message.readUInt32LE(68),
  };
}

/**
 * A line of /proc/net/tcp (linux/net/ipv4/tcp_ipv4.c, tcp4_seq_show); addresses are 32-bit words in the host's byte order:
 *
 *     sl local_address rem_address   st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
 *      0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345
 */
function decodeProcLine(protocol: 'tcp' | 'udp', line: string): ListeningSocket | undefined {
  const [, local = '', , state = '', , , , , , inode] = line.trim().split(/\s+/);
  const [hex = '', port] = local.split(':');
  if (port === undefined || Number.parseInt(state, 16) !== STATE[protocol]) return undefined;
  return {
    protocol,
    address: addressText(Buffer.from(hex, 'hex').swap32()),
    port: Number.parseInt(port, 16),
    ipv6Only: false,
    inode: Number(inode),
  };
}

function addressText(bytes: Buffer): string {
  const address = addressFromBytes(bytes);
  return address === undefined ? '' : formatAddress(address);
}
