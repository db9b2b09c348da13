import { FlagsNew } from 'netlink/dist/constants.js';
import { formatAddressMessage, MessageType, type AddressAttrs } from 'netlink/dist/rt/structs.js';
import { formatCidr, lastAddress, type AddressFamily, type Cidr } from '../../net/address.ts';
import { KernelError } from '../errno.ts';
import { Attributes, encode } from '../netlink/attributes.ts';
import type { NetlinkRequest } from '../netlink/message.ts';
import {
  AF_INET,
  AF_INET6,
  addressText,
  bytesOf,
  cidrText,
  familyNumber,
  requireAddress,
  requireCidr,
} from '../netlink/ip.ts';
import type { Rtnetlink } from './rtnetlink.ts';

/** An address on a link (linux/if_addr.h). */
export interface AddressInfo {
  readonly index: number;
  /** With prefix length, canonical text: `10.88.0.1/16`, `fd00::1/64`. */
  readonly address: string;
  readonly family: AddressFamily;
  readonly broadcast: string | undefined;
  /** 0 global, 253 link, 254 host. */
  readonly scope: number;
  /** IFA_F_*, all 32 bits. */
  readonly flags: number;
  /** IPv6: duplicate address detection has not finished, so the address is not usable yet. */
  readonly tentative: boolean;
  /** IPv6: duplicate address detection found another host with this address. */
  readonly dadFailed: boolean;
  readonly noDad: boolean;
}

export interface AddressSpec {
  readonly index: number;
  /** With prefix length: `10.88.0.2/16`. */
  readonly address: string;
  /** IPv6: usable at once, without duplicate address detection. */
  readonly noDad?: boolean;
  /** IPv4: an address, or `computed`: the last one of the prefix (none for /31 and /32). Default none, as `ip addr add`. */
  readonly broadcast?: string;
}

/** All addresses, or those of one link and/or family; none when there is no such link. */
export function addresses(
  rtnetlink: Rtnetlink,
  filter: { index?: number; family?: AddressFamily } = {},
): AddressInfo[] {
  return rtnetlink
    .dump(listRequest(filter), ['ENODEV'])
    .flatMap(({ body }) => decodeAddress(body) ?? [])
    .filter(({ index }) => filter.index === undefined || index === filter.index)
    .filter(({ family }) => filter.family === undefined || family === filter.family);
}

/** @throws KernelError EEXIST, ENODEV; EACCES or EOPNOTSUPP when IPv6 is disabled */
export function addAddress(rtnetlink: Rtnetlink, address: AddressSpec): void {
  rtnetlink.request(addAddressRequest(address));
}

/**
 * struct ifaddrmsg and attributes:
 *
 *    0        1            2          3       4       8
 *    +--------+------------+----------+-------+-------+
 *    | family | prefix len | flags u8 | scope | index |   [2 LOCAL] [1 ADDRESS] [4 BROADCAST]
 *    +--------+------------+----------+-------+-------+
 */
export function addAddressRequest(spec: AddressSpec): NetlinkRequest {
  const cidr = requireCidr(spec.address);
  const broadcast = broadcastOf(cidr, spec.broadcast);
  return {
    what: `RTM_NEWADDR ${formatCidr(cidr)}`,
    type: MessageType.NEWADDR,
    flags: FlagsNew.CREATE | FlagsNew.EXCL,
    body: encodeAddress(spec.index, cidr, spec.noDad === true, broadcast),
  };
}

/** @returns false when the link lacks it or there is no such link */
export function deleteAddress(
  rtnetlink: Rtnetlink,
  address: { readonly index: number; readonly address: string },
): boolean {
  const cidr = requireCidr(address.address);
  const request: NetlinkRequest = {
    what: `RTM_DELADDR ${formatCidr(cidr)}`,
    type: MessageType.DELADDR,
    flags: 0,
    body: encodeAddress(address.index, cidr, false, undefined),
  };
  return rtnetlink.requestUnless(['EADDRNOTAVAIL', 'ENODEV'], request) !== undefined;
}

const IFADDRMSG = 8;
/** linux/if_addr.h */
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_FLAGS = 8;
const IFA_F_NODAD = 0x02;
const IFA_F_DADFAILED = 0x08;
const IFA_F_TENTATIVE = 0x40;

function encodeAddress(index: number, cidr: Cidr, nodad: boolean, broadcast: Buffer | undefined): Buffer {
  const family = familyNumber(cidr.address.family);
  const address = bytesOf(cidr.address);
  const data = { family, prefixlen: cidr.prefix, index, ...(nodad && { flags: { nodad } as const }) };
  const attrs: AddressAttrs = { local: address, address, ...(broadcast !== undefined && { broadcast }) };
  return encode((out) => formatAddressMessage({ kind: 'address', data, attrs }, out));
}

function broadcastOf(cidr: Cidr, broadcast: string | undefined): Buffer | undefined {
  if (broadcast === undefined || cidr.address.family === 'ipv6') return undefined;
  if (broadcast !== 'computed') return bytesOf(requireAddress(broadcast));
  return cidr.prefix >= 31 ? undefined : bytesOf(lastAddress(cidr));
}

function listRequest(filter: { index?: number; family?: AddressFamily }): NetlinkRequest {
  const data = { family: familyNumber(filter.family), index: filter.index ?? 0 };
  return {
    what: 'RTM_GETADDR (list)',
    type: MessageType.GETADDR,
    flags: 0,
    body: encode((out) => formatAddressMessage({ kind: 'address', data, attrs: {} }, out)),
  };
}

/** @returns undefined for families other than IPv4 and IPv6 */
function decodeAddress(body: Buffer): AddressInfo | undefined {
  if (body.length < IFADDRMSG) throw new KernelError('RTM_NEWADDR', 74, { detail: `${body.length} bytes` });
  const family = body.readUInt8(0);
  const attributes = new Attributes(body, IFADDRMSG);
  // ADDRESS is the peer of a point-to-point address and LOCAL the own address; otherwise IPv6 has only ADDRESS.
  const address = attributes.get(IFA_LOCAL) ?? attributes.get(IFA_ADDRESS);
  if ((family !== AF_INET && family !== AF_INET6) || address === undefined) return undefined;
  const flags = attributes.u32(IFA_FLAGS) ?? body.readUInt8(2);
  const broadcast = attributes.get(IFA_BROADCAST);
  return {
    index: body.readUInt32LE(4),
    address: cidrText(address, body.readUInt8(1)),
    family: family === AF_INET ? 'ipv4' : 'ipv6',
    broadcast: broadcast === undefined ? undefined : addressText(broadcast),
    scope: body.readUInt8(3),
    flags,
    tentative: (flags & IFA_F_TENTATIVE) !== 0,
    dadFailed: (flags & IFA_F_DADFAILED) !== 0,
    noDad: (flags & IFA_F_NODAD) !== 0,
  };
}
