import type { AttrStream } from 'netlink/dist/structs.js';
import { KernelError } from './errno.ts';
import { Attributes, encode, NESTED, NETWORK_ORDER } from './netlink/attributes.ts';
import type { NetlinkRequest } from './netlink/message.ts';
import { AF_INET } from './netlink/ip.ts';

/**
 * Connection tracking entries over netlink (linux/netfilter/nfnetlink_conntrack.h). All messages begin with struct nfgenmsg:
 *
 *    0        1           2                  4
 *    +--------+-----------+------------------+- - - - - -
 *    | family | version 0 | resource id (be) | attributes
 *    +--------+-----------+------------------+- - - - - -
 */
export interface ConntrackTuple {
  readonly source: Buffer | undefined;
  readonly destination: Buffer | undefined;
  readonly protocol: number | undefined;
  readonly destinationPort: number | undefined;
}

export interface ConntrackEntry {
  readonly family: number;
  readonly original: ConntrackTuple;
  readonly reply: ConntrackTuple;
  /** Attributes that identify this entry in a request to delete it, as the kernel wrote them: tuple, id, zone. */
  readonly identity: readonly { readonly type: number; readonly payload: Buffer }[];
}

/**
 *    nfgenmsg
 *    [1 TUPLE_ORIG]  [1 IP] [2 V4_DST | 4 V6_DST]           [2 PROTO] [1 NUM] [3 DST_PORT be]
 *    [2 TUPLE_REPLY] [1 IP] [1 V4_SRC | 3 V6_SRC]
 *    [25 FILTER]     [1 ORIG_FLAGS u32] [2 REPLY_FLAGS u32]   which parts of the tuples are compared
 */
export function listEntriesRequest(
  family: number,
  filter: { protocol: number; destinationPort?: number; destination?: Buffer; replySource?: Buffer },
): NetlinkRequest {
  const { protocol, destinationPort, destination, replySource } = filter;
  const body = encode((out) => {
    out.emit(Buffer.of(family, 0, 0, 0));
    out.push(CTA_TUPLE_ORIG | NESTED, (tuple) => {
      if (destination !== undefined) putAddress(tuple, family, DESTINATION, destination);
      tuple.push(CTA_TUPLE_PROTO | NESTED, (part) => {
        part.push(CTA_PROTO_NUM, Buffer.of(protocol));
        if (destinationPort !== undefined)
          part.push(CTA_PROTO_DST_PORT | NETWORK_ORDER, uint16be(destinationPort));
      });
    });
    if (replySource !== undefined) {
      out.push(CTA_TUPLE_REPLY | NESTED, (tuple) => putAddress(tuple, family, SOURCE, replySource));
    }
    out.push(CTA_FILTER | NESTED, (flags) => {
      const original =
        F_PROTO_NUM |
        (destinationPort === undefined ? 0 : F_PROTO_DST_PORT) |
        (destination === undefined ? 0 : F_IP_DST);
      flags.push(CTA_FILTER_ORIG_FLAGS, uint32(original));
      flags.push(CTA_FILTER_REPLY_FLAGS, uint32(replySource === undefined ? 0 : F_IP_SRC));
    });
  });
  return {
    what: 'IPCTNL_MSG_CT_GET (list)',
    type: (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET,
    flags: 0,
    body,
  };
}

/** nfgenmsg, then the identity as it was listed; the id keeps a later entry with the same tuple safe. */
export function deleteEntryRequest(entry: ConntrackEntry): NetlinkRequest {
  const body = encode((out) => {
    out.emit(Buffer.of(entry.family, 0, 0, 0));
    for (const { type, payload } of entry.identity) out.push(type, payload);
  });
  return {
    what: 'IPCTNL_MSG_CT_DELETE',
    type: (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE,
    flags: 0,
    body,
  };
}

/** @throws KernelError EBADMSG */
export function decodeEntry(body: Buffer): ConntrackEntry {
  if (body.length < NFGENMSG)
    throw new KernelError('IPCTNL_MSG_CT_NEW', 74, { detail: `${body.length} bytes` });
  const family = body.readUInt8(0);
  const attributes = new Attributes(body, NFGENMSG);
  return {
    family,
    original: decodeTuple(attributes.nested(CTA_TUPLE_ORIG), family),
    reply: decodeTuple(attributes.nested(CTA_TUPLE_REPLY), family),
    identity: IDENTITY.flatMap(({ type, flag }) => {
      const payload = attributes.get(type);
      return payload === undefined ? [] : [{ type: type | flag, payload }];
    }),
  };
}

const NFGENMSG = 4;
/** linux/netfilter/nfnetlink.h, nfnetlink_conntrack.h */
const NFNL_SUBSYS_CTNETLINK = 1;
const IPCTNL_MSG_CT_GET = 1;
const IPCTNL_MSG_CT_DELETE = 2;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_FILTER = 25;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_DST_PORT = 3;
/** CTA_IP_V4_SRC and CTA_IP_V6_SRC, CTA_IP_V4_DST and CTA_IP_V6_DST */
const SOURCE = { ipv4: 1, ipv6: 3 } as const;
const DESTINATION = { ipv4: 2, ipv6: 4 } as const;
/** CTA_FILTER_F_*, net/netfilter/nf_internals.h of the kernel */
const F_IP_SRC = 1 << 0;
const F_IP_DST = 1 << 1;
const F_PROTO_NUM = 1 << 3;
const F_PROTO_DST_PORT = 1 << 5;
const IDENTITY = [
  { type: CTA_TUPLE_ORIG, flag: NESTED },
  { type: CTA_ID, flag: 0 },
  { type: CTA_ZONE, flag: 0 },
] as const;

function putAddress(
  tuple: AttrStream,
  family: number,
  side: typeof SOURCE | typeof DESTINATION,
  address: Buffer,
): void {
  tuple.push(CTA_TUPLE_IP | NESTED, (part) => part.push(family === AF_INET ? side.ipv4 : side.ipv6, address));
}

function decodeTuple(tuple: Attributes | undefined, family: number): ConntrackTuple {
  const addresses = tuple?.nested(CTA_TUPLE_IP);
  const transport = tuple?.nested(CTA_TUPLE_PROTO);
  return {
    source: addresses?.get(family === AF_INET ? SOURCE.ipv4 : SOURCE.ipv6),
    destination: addresses?.get(family === AF_INET ? DESTINATION.ipv4 : DESTINATION.ipv6),
    protocol: transport?.u8(CTA_PROTO_NUM),
    destinationPort: transport?.u16be(CTA_PROTO_DST_PORT),
  };
}

function uint16be(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
