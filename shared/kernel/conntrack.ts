import { Protocol } from 'netlink/dist/constants.js';
import {
  type ConntrackEntry,
  decodeEntry,
  deleteEntryRequest,
  listEntriesRequest,
} from './conntrack-codec.ts';
import { isErrno } from './errno.ts';
import { readKernelFile } from './files.ts';
import { dump, exchange } from './netlink/conversation.ts';
import { AF_INET, AF_INET6, addressText, bytesOf, requireAddress } from './netlink/ip.ts';
import { type NetlinkRequest, NetlinkSocket } from './netlink/socket.ts';

/** Which connection tracking entries to remove; an absent field matches every entry. */
export interface ConntrackFilter {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  /** Destination port before any DNAT, i.e. the host port. */
  readonly originalPort: number;
  /** Last port of a range that begins with `originalPort`. */
  readonly lastPort?: number;
  /** Only some ports of the range: one listing serves any number of ports. */
  readonly hasPort?: (port: number) => boolean;
  /** Destination address before any DNAT, e.g. the host IP of a port mapping. */
  readonly originalAddress?: string;
  /** Any one of several such addresses; called only when there is an entry to compare with. */
  readonly originalAddresses?: () => readonly string[];
  /** Default: that of the address, or both. */
  readonly family?: 'ipv4' | 'ipv6';
  /** Source address of replies, i.e. the container that receives the flow. */
  readonly replySource?: string;
}

/**
 * Deletes connection tracking entries in the caller's network namespace, so that NAT rules apply to the next packet of each flow.
 * An entry that expires meanwhile is no error, and a new entry in its place stays.
 * @returns how many entries were deleted
 * @throws KernelError, e.g. when the kernel lacks connection tracking over netlink
 */
export function deleteConntrack(filter: ConntrackFilter): number {
  using conntrack = Conntrack.open();
  return conntrack.delete(filter);
}

/** {@link deleteConntrack} for several filters, over one socket. */
export class Conntrack {
  readonly #socket: NetlinkSocket;

  static open(): Conntrack {
    return new Conntrack(NetlinkSocket.open(Protocol.NETFILTER));
  }

  /** Use {@link Conntrack.open}. */
  private constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  delete(filter: ConntrackFilter): number {
    const entries = familiesOf(filter).flatMap((family) => list(this.#socket, family, filter));
    let removed = 0;
    for (let at = 0; at < entries.length; at += PER_WRITE) {
      removed += remove(this.#socket, entries.slice(at, at + PER_WRITE).map(deleteEntryRequest));
    }
    return removed;
  }

  [Symbol.dispose](): void {
    this.#socket.close();
  }
}

/** linux/in.h */
const PROTOCOL_NUMBERS = { tcp: 6, udp: 17, sctp: 132 } as const;
/** About 15 KiB of requests and 100 KiB of acknowledgements. */
const PER_WRITE = 128;

/** NAT does not translate between families: replies have the same one. */
function familiesOf({ family, originalAddress, replySource }: ConntrackFilter): number[] {
  const address = originalAddress ?? replySource;
  const known = family ?? (address === undefined ? undefined : requireAddress(address).family);
  if (known === undefined) return [AF_INET, AF_INET6];
  return [known === 'ipv4' ? AF_INET : AF_INET6];
}

function list(socket: NetlinkSocket, family: number, filter: ConntrackFilter): ConntrackEntry[] {
  const { originalAddress, replySource, originalPort, lastPort = originalPort } = filter;
  // Kernels from 5.8 to at least 6.18 invert the comparison of IPv6 addresses (they list every address except the given one), so those
  // are compared only here.
  const byKernel = family === AF_INET;
  const request = listEntriesRequest(family, {
    protocol: PROTOCOL_NUMBERS[filter.protocol],
    // The kernel does not filter by a range of ports: list everything of the protocol, once.
    ...(lastPort === originalPort && { destinationPort: originalPort }),
    ...(byKernel && originalAddress !== undefined && { destination: bytes(originalAddress) }),
    ...(byKernel && replySource !== undefined && { replySource: bytes(replySource) }),
  });
  return dump(socket, request)
    .map(({ body }) => decodeEntry(body))
    .filter((entry) => matches(entry, family, filter));
}

/** Applies the filter again: before Linux 5.8 the kernel lists everything. */
function matches(entry: ConntrackEntry, family: number, filter: ConntrackFilter): boolean {
  const { original, reply } = entry;
  const { destinationPort: port = -1 } = original;
  const { originalPort: first, lastPort: last = first } = filter;
  return (
    entry.family === family &&
    original.protocol === PROTOCOL_NUMBERS[filter.protocol] &&
    port >= first &&
    port <= last &&
    (filter.hasPort?.(port) ?? true) &&
    isAddress(original.destination, filter.originalAddress) &&
    isAddress(reply.source, filter.replySource) &&
    (filter.originalAddresses?.().some((address) => isAddress(original.destination, address)) ?? true)
  );
}

function isAddress(found: Buffer | undefined, wanted: string | undefined): boolean {
  if (wanted === undefined) return true;
  return found !== undefined && addressText(found) === addressText(bytes(wanted));
}

function remove(socket: NetlinkSocket, requests: readonly NetlinkRequest[]): number {
  let removed = 0;
  for (const { error } of exchange(socket, requests)) {
    if (error === undefined) removed += 1;
    else if (!isErrno(error, 'ENOENT')) throw error;
  }
  return removed;
}

function bytes(address: string): Buffer {
  return bytesOf(requireAddress(address));
}

/** Flows by protocol and destination port before any DNAT, or a range of such ports. */
export interface Flows {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly originalPort: number;
  readonly lastPort?: number;
}

/**
 * Those of `wanted` that the kernel may be tracking in the caller's network namespace; the others it certainly is not.
 *
 * A list over netlink, filtered or not, takes a lock for each bucket of a table that all namespaces share: 9 to 20 ms with 262,144 buckets,
 * however few entries there are. The list under /proc needs no locks and 0.3 ms for each read, but not every kernel has it (CONFIG_NF_CONNTRACK_PROCFS).
 */
export function maybeTracked<Wanted extends Flows>(wanted: readonly Wanted[]): readonly Wanted[] {
  const count = readIfThere('/proc/sys/net/netfilter/nf_conntrack_count');
  if (count !== undefined && Number(count) === 0) return [];
  if (wanted.length === 0 || count === undefined || Number(count) > MANY) return wanted;
  const list = readIfThere('/proc/thread-self/net/nf_conntrack');
  return list === undefined ? wanted : listed(list, wanted);
}

/** About 2 MB of text; with more entries the kernel's own filter is faster. */
const MANY = 10_000;

/**
 * A line of the list has `dport` twice; the first is that of the original direction:
 *
 *     ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000 mark=0 use=1
 */
export function listed<Wanted extends Flows>(list: string, wanted: readonly Wanted[]): readonly Wanted[] {
  const tracked = list.split('\n').map((line) => ({ line, port: Number(/ dport=(\d+)/.exec(line)?.[1]) }));
  return wanted.filter(({ protocol, originalPort, lastPort = originalPort }) =>
    tracked.some(
      ({ line, port }) => port >= originalPort && port <= lastPort && line.includes(` ${protocol} `),
    ),
  );
}

function readIfThere(path: string): string | undefined {
  try {
    return readKernelFile(path);
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT', 'EACCES', 'EPERM')) return undefined;
    throw thrown;
  }
}
