import { formatNeighborMessage, MessageType } from 'netlink/dist/rt/structs.js';
import type { AddressFamily } from '../../net/address.ts';
import { KernelError } from '../errno.ts';
import { Attributes, encode } from '../netlink/attributes.ts';
import type { NetlinkRequest } from '../netlink/message.ts';
import {
  AF_INET,
  AF_INET6,
  addressText,
  bytesOf,
  familyNumber,
  macText,
  requireAddress,
} from '../netlink/ip.ts';
import type { Rtnetlink } from './rtnetlink.ts';

/** An entry of the ARP or neighbour discovery cache (linux/neighbour.h). */
export interface NeighbourInfo {
  readonly index: number;
  readonly address: string;
  readonly family: AddressFamily;
  readonly mac: string | undefined;
  /** NUD_*: 0x02 reachable, 0x04 stale, 0x20 failed, 0x80 permanent, ... */
  readonly state: number;
}

/** All entries, or those of one link and/or family; none when there is no such link. */
export function neighbours(
  rtnetlink: Rtnetlink,
  filter: { index?: number; family?: AddressFamily } = {},
): NeighbourInfo[] {
  return rtnetlink
    .dump(listRequest(filter), ['ENODEV'])
    .flatMap(({ body }) => decodeNeighbour(body) ?? [])
    .filter(({ index }) => filter.index === undefined || index === filter.index)
    .filter(({ family }) => filter.family === undefined || family === filter.family);
}

/** @returns false when there was none */
export function deleteNeighbour(
  rtnetlink: Rtnetlink,
  neighbour: { readonly index: number; readonly address: string },
): boolean {
  return rtnetlink.requestUnless(['ENOENT', 'ENODEV'], deleteNeighbourRequest(neighbour)) !== undefined;
}

/**
 * struct ndmsg and attributes:
 *
 *    0        1     4       8       10      11     12
 *    +--------+-----+-------+-------+-------+------+
 *    | family | pad | index | state | flags | type |   [1 NDA_DST]
 *    +--------+-----+-------+-------+-------+------+
 */
export function deleteNeighbourRequest(neighbour: {
  readonly index: number;
  readonly address: string;
}): NetlinkRequest {
  const address = requireAddress(neighbour.address);
  const data = {
    family: familyNumber(address.family),
    ifindex: neighbour.index,
    state: { permanent: true } as const,
  };
  return {
    what: `RTM_DELNEIGH ${neighbour.address}`,
    type: MessageType.DELNEIGH,
    flags: 0,
    body: encode((out) =>
      formatNeighborMessage({ kind: 'neighbor', data, attrs: { dst: bytesOf(address) } }, out),
    ),
  };
}

const NDMSG = 12;
/** linux/neighbour.h */
const NDA_DST = 1;
const NDA_LLADDR = 2;

/** [8 NDA_IFINDEX]: the kernel lists only entries of that link. */
function listRequest(filter: { index?: number; family?: AddressFamily }): NetlinkRequest {
  const index = Buffer.alloc(4);
  index.writeUInt32LE(filter.index ?? 0);
  const data = { family: familyNumber(filter.family) };
  const attrs = filter.index === undefined ? {} : { ifindex: index };
  return {
    what: 'RTM_GETNEIGH (list)',
    type: MessageType.GETNEIGH,
    flags: 0,
    body: encode((out) => formatNeighborMessage({ kind: 'neighbor', data, attrs }, out)),
  };
}

/** @returns undefined for other families, e.g. a bridge's own table */
function decodeNeighbour(body: Buffer): NeighbourInfo | undefined {
  if (body.length < NDMSG) throw new KernelError('RTM_NEWNEIGH', 74, { detail: `${body.length} bytes` });
  const family = body.readUInt8(0);
  const attributes = new Attributes(body, NDMSG);
  const address = attributes.get(NDA_DST);
  if ((family !== AF_INET && family !== AF_INET6) || address === undefined) return undefined;
  return {
    index: body.readInt32LE(4),
    address: addressText(address),
    family: family === AF_INET ? 'ipv4' : 'ipv6',
    mac: macText(attributes.get(NDA_LLADDR)),
    state: body.readUInt16LE(8),
  };
}
