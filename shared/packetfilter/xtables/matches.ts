/**
 * The structs of xtables' matches (linux/netfilter/xt_*.h), which iptables-legacy and iptables-nft both store. A layout shows
 * `offset field type`; numbers are host-endian. Decoders expect bytes that the caller encodes again and compares, so they skip fields that
 * this suite always leaves at the same value.
 */
import { textOf } from '../nftables/nlattr.ts';
import type { Match, PortRange, Rule } from '../ruleset.ts';

/** A match or target with its struct, without the padding to 8 bytes. */
export interface XtExtension {
  readonly name: string;
  readonly revision: number;
  readonly info: Uint8Array;
}

/** Matches that are a struct. */
export type XtMatch = Exclude<Match, { kind: 'rawArgs' }>;

/** @param protocol of the rule, for its ports */
export function encodeXtMatch(match: XtMatch, protocol: Rule['protocol']): XtExtension {
  switch (match.kind) {
    case 'comment':
      return { name: 'comment', revision: 0, info: comment(match.comment) };
    case 'conntrack':
      return { name: 'conntrack', revision: 3, info: conntrack(match.states) };
    case 'addrtype':
      return { name: 'addrtype', revision: 1, info: addrtypeLocal() };
    case 'multiport':
      return { name: 'multiport', revision: 1, info: multiport(match.destinationPorts) };
    case 'owner':
      return { name: 'owner', revision: 1, info: owner(match.uid.first, match.uid.last) };
    case 'port':
      return protocol === 'tcp' || protocol === 'udp'
        ? { name: protocol, revision: 0, info: ports(protocol, match.destinationPort) }
        : { name: 'sctp', revision: 0, info: sctp(match.destinationPort) };
    case 'mark':
      return { name: 'mark', revision: 1, info: mark(match) };
  }
}

/** @returns undefined for a match of another name */
export function decodeXtMatch(name: string, info: Buffer): XtMatch | undefined {
  switch (name) {
    case 'comment':
      return { kind: 'comment', comment: textOf(info) };
    case 'conntrack':
      return info.length < STATUS_MASK ? undefined : { kind: 'conntrack', states: statesOf(info) };
    case 'addrtype':
      return { kind: 'addrtype', destinationType: 'LOCAL' };
    case 'multiport':
      // A range that begins at the last position has no end: iptables cannot express it.
      return info[PORT_FLAGS + MOST_PORTS - 1] !== 0
        ? undefined
        : { kind: 'multiport', destinationPorts: multiportRanges(info) };
    case 'owner':
      return { kind: 'owner', uid: { first: info.readUInt32LE(0), last: info.readUInt32LE(4) } };
    case 'tcp':
    case 'udp':
      return { kind: 'port', destinationPort: { first: info.readUInt16LE(4), last: info.readUInt16LE(6) } };
    case 'sctp':
      return { kind: 'port', destinationPort: { first: info.readUInt16LE(0), last: info.readUInt16LE(2) } };
    case 'mark': {
      const decoded = { kind: 'mark', value: info.readUInt32LE(0), mask: info.readUInt32LE(4) } as const;
      return info[8] === 1 ? { ...decoded, negated: true } : decoded;
    }
    default:
      return undefined;
  }
}

/** XT_CONNTRACK_STATE_BIT of xt_conntrack.h: INVALID 1, else 1 << (ctinfo + 1). In the order in which iptables prints them. */
export const CONNTRACK_STATES = { INVALID: 1, NEW: 8, RELATED: 4, ESTABLISHED: 2 } as const;
/** XT_CONNTRACK_STATE_SNAT and _DNAT, which the kernel compares with the connection's status. */
export const CONNTRACK_SNAT = 64;
export const CONNTRACK_DNAT = 128;
/** XT_CONNTRACK_STATE, in match_flags and invert_flags. */
export const CONNTRACK_STATE = 1;

/** Of struct xt_conntrack_mtinfo2 and 3, see {@link conntrack}. @returns undefined for an older revision */
export function conntrackTests(
  revision: number,
  info: Buffer,
): { readonly tests: number; readonly inverted: number; readonly states: number } | undefined {
  if (revision < 2 || info.length < STATUS_MASK) return undefined;
  return {
    tests: info.readUInt16LE(MATCH_FLAGS),
    inverted: info.readUInt16LE(INVERT_FLAGS),
    states: info.readUInt16LE(STATE_MASK),
  };
}

const MATCH_FLAGS = 146;
const INVERT_FLAGS = 148;
const STATE_MASK = 150;
const STATUS_MASK = 152;

/**
 * struct xt_conntrack_mtinfo3
 * ```
 *   0 addresses and masks, 8 × 16 | 128 expires_min u32 | 132 expires_max u32 | 136 l4proto u16 | 138 ports be16 × 4 |
 * 146 match_flags u16 | 148 invert_flags u16 | 150 state_mask u16 | 152 status_mask u16 | 154 high ports be16 × 4
 * ```
 */
function conntrack(states: readonly (keyof typeof CONNTRACK_STATES)[]): Uint8Array {
  const bytes = Buffer.alloc(164);
  bytes.writeUInt16LE(CONNTRACK_STATE, MATCH_FLAGS);
  bytes.writeUInt16LE(
    states.reduce((bits, state) => bits | CONNTRACK_STATES[state], 0),
    STATE_MASK,
  );
  return bytes;
}

function statesOf(info: Buffer): (keyof typeof CONNTRACK_STATES)[] {
  const bits = info.readUInt16LE(STATE_MASK);
  return STATE_NAMES.filter((state) => (bits & CONNTRACK_STATES[state]) !== 0);
}

const STATE_NAMES = ['INVALID', 'NEW', 'RELATED', 'ESTABLISHED'] as const;

/** struct xt_comment_info: 0 comment, 256 bytes with its NUL */
function comment(text: string): Uint8Array {
  const bytes = Buffer.alloc(256);
  bytes.write(text, 0, 255);
  return bytes;
}

/** struct xt_addrtype_info_v1: 0 source u16 | 2 dest u16, 1 << RTN_LOCAL | 4 flags u32 */
function addrtypeLocal(): Uint8Array {
  return Uint8Array.of(0, 0, 4, 0, 0, 0, 0, 0);
}

/**
 * struct xt_multiport_v1
 * ```
 * 0 flags u8, 1 = destination ports | 1 count u8 | 2 ports u16 × 15 | 32 pflags u8 × 15, 1 = begins a range that ends at the next port |
 * 47 invert u8
 * ```
 */
function multiport(ports: readonly PortRange[]): Uint8Array {
  const bytes = Buffer.alloc(48);
  let count = 0;
  for (const { first, last } of ports) {
    if (last !== first) bytes[PORT_FLAGS + count] = 1;
    bytes.writeUInt16LE(first, 2 + 2 * count++);
    if (last !== first) bytes.writeUInt16LE(last, 2 + 2 * count++);
  }
  if (count > MOST_PORTS) throw new Error(`a multiport match holds ${MOST_PORTS} ports, got ${count}`);
  bytes[0] = 1;
  bytes[1] = count;
  return bytes;
}

/** The ports of a struct xt_multiport_v1. */
export function multiportRanges(info: Buffer): PortRange[] {
  const ports: PortRange[] = [];
  const count = Math.min(info[1] ?? 0, MOST_PORTS);
  for (let at = 0; at < count; at++) {
    const first = info.readUInt16LE(2 + 2 * at);
    const ranged = info[PORT_FLAGS + at] === 1;
    if (ranged) at += 1;
    ports.push({ first, last: ranged ? info.readUInt16LE(2 + 2 * at) : first });
  }
  return ports;
}

/** XT_MULTI_PORTS */
export const MOST_PORTS = 15;
const PORT_FLAGS = 32;

/** struct xt_owner_match_info: 0 uid_min u32 | 4 uid_max u32 | 8 gid_min u32 | 12 gid_max u32 | 16 match u8, 1 = uid | 17 invert u8 */
function owner(first: number, last: number): Uint8Array {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt32LE(first, 0);
  bytes.writeUInt32LE(last, 4);
  bytes[16] = 1;
  return bytes;
}

/**
 * struct xt_sctp_info; iptables fills the unused chunk types with 255.
 * ```
 * 0 dpts u16 × 2 | 4 spts u16 × 2 | 8 chunkmap u32 × 64 | 264 chunk_match_type u32 | 268 flag_info u8 × 3 × 4 | 280 flag_count i32 |
 * 284 flags u32, 2 = destination ports | 288 invflags u32
 * ```
 */
function sctp({ first, last }: PortRange): Uint8Array {
  const bytes = Buffer.alloc(292);
  bytes.writeUInt16LE(first, 0);
  bytes.writeUInt16LE(last, 2);
  for (const at of [268, 271, 274, 277]) bytes[at] = 0xff;
  bytes.writeUInt32LE(2, 284);
  return bytes;
}

/**
 * struct xt_tcp, struct xt_udp: any source port.
 * ```
 * tcp   0 spts u16 × 2 | 4 dpts u16 × 2 | 8 option u8 | 9 flg_mask u8 | 10 flg_cmp u8 | 11 invflags u8
 * udp   0 spts u16 × 2 | 4 dpts u16 × 2 | 8 invflags u8 | 9 padding
 * ```
 */
function ports(protocol: 'tcp' | 'udp', { first, last }: PortRange): Uint8Array {
  const bytes = Buffer.alloc(protocol === 'tcp' ? 12 : 10);
  bytes.writeUInt16LE(HIGHEST_PORT, 2);
  bytes.writeUInt16LE(first, 4);
  bytes.writeUInt16LE(last, 6);
  return bytes;
}

const HIGHEST_PORT = 0xffff;

/** struct xt_mark_mtinfo1: 0 mark u32 | 4 mask u32 | 8 invert u8 */
function mark({ value, mask, negated }: Extract<Match, { kind: 'mark' }>): Uint8Array {
  const bytes = Buffer.alloc(12);
  bytes.writeUInt32LE(value, 0);
  bytes.writeUInt32LE(mask, 4);
  bytes[8] = negated === true ? 1 : 0;
  return bytes;
}

/** Whether a rule of this protocol can test ports. */
export function hasPorts(protocol: Rule['protocol']): boolean {
  return protocol === 'tcp' || protocol === 'udp' || protocol === 'sctp';
}
