import { Protocol } from 'netlink/dist/constants.js';
import { isErrno } from './errno.ts';
import { dump, exchange } from './netlink/conversation.ts';
import { NetlinkSocket, type NetlinkRequest } from './netlink/socket.ts';
import {
  decodeEntry,
  deleteEntryRequest,
  listEntriesRequest,
  type ConntrackEntry,
} from './conntrack-codec.ts';
import { AF_INET, AF_INET6, addressText, bytesOf, requireAddress } from './netlink/ip.ts';

/** Which connection tracking entries to remove; an absent field matches every entry. */
export interface ConntrackFilter {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  /** Destination port before any DNAT, i.e. the host port. */
  readonly originalPort: number;
  /** The last of a run of ports that begins with `originalPort`. */
  readonly lastPort?: number;
  /** Destination address before any DNAT, e.g. the host IP of a port mapping. */
  readonly originalAddress?: string;
  /** Any one of several such addresses; asked for when there is an entry to compare with. */
  readonly originalAddresses?: () => readonly string[];
  /** Both families, unless an address or this says which. */
  readonly family?: 'ipv4' | 'ipv6';
  /** Source address of replies, i.e. the container that the flow was sent to. */
  readonly replySource?: string;
}

/**
 * Makes the kernel forget flows in the caller's network namespace, so that their next packet meets the rules anew.
 * An entry that ends by itself meanwhile is no error; one that takes its place is left alone.
 * @returns how many entries were removed
 * @throws KernelError, e.g. where the kernel lacks connection tracking over netlink
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
/** Some 15 KiB of requests, some 100 KiB of acknowledgements waiting. */
const PER_WRITE = 128;

/** A translation between families cannot be: replies are of the same one. */
function familiesOf({ family, originalAddress, replySource }: ConntrackFilter): number[] {
  const address = originalAddress ?? replySource;
  const known = family ?? (address === undefined ? undefined : requireAddress(address).family);
  if (known === undefined) return [AF_INET, AF_INET6];
  return [known === 'ipv4' ? AF_INET : AF_INET6];
}

function list(socket: NetlinkSocket, family: number, filter: ConntrackFilter): ConntrackEntry[] {
  const { originalAddress, replySource, originalPort, lastPort = originalPort } = filter;
  // Kernels from 5.8 to at least 6.18 take IPv6 addresses the wrong way round (every address except the given one): there
  // they are compared here alone.
  const byKernel = family === AF_INET;
  const request = listEntriesRequest(family, {
    protocol: PROTOCOL_NUMBERS[filter.protocol],
    // The kernel knows no runs of ports: of a run, everything of the protocol is listed, once.
    ...(lastPort === originalPort && { destinationPort: originalPort }),
    ...(byKernel && originalAddress !== undefined && { destination: bytes(originalAddress) }),
    ...(byKernel && replySource !== undefined && { replySource: bytes(replySource) }),
  });
  return dump(socket, request)
    .map(({ body }) => decodeEntry(body))
    .filter((entry) => matches(entry, family, filter));
}

/** Also what the kernel has filtered: before Linux 5.8 it lists everything. */
function matches(entry: ConntrackEntry, family: number, filter: ConntrackFilter): boolean {
  const { original, reply } = entry;
  const { destinationPort: port = -1 } = original;
  const { originalPort: first, lastPort: last = first } = filter;
  return (
    entry.family === family &&
    original.protocol === PROTOCOL_NUMBERS[filter.protocol] &&
    port >= first &&
    port <= last &&
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
