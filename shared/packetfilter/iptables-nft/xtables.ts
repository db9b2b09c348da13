/** The structs of xtables' matches and targets (linux/netfilter/xt_*.h, nf_nat.h); numbers are host-endian unless marked be. */
import { addressBytes, parseAddress } from '../../net/address.ts';
import * as expr from '../nftables/expressions.ts';
import type { Family, Match, PortRange, Target } from '../ruleset.ts';

type XtMatch = Exclude<Match, { kind: 'mark' | 'rawArgs' }>;
type XtTarget =
  Extract<Target, { kind: 'dnat' | 'redirect' | 'mark' | 'reject' }> | { readonly kind: 'masquerade' };

/** A match or target as xtables knows it; `info` without the padding to 8 bytes. */
export interface XtPart {
  readonly name: string;
  readonly revision: number;
  readonly info: Uint8Array;
}

export function encodeXtMatch(match: XtMatch): expr.Expression {
  const { name, revision, info } = xtMatch(match);
  return expr.xtMatch(name, revision, info);
}

export function encodeXtTarget(family: Family, target: XtTarget): expr.Expression {
  const { name, revision, info } = xtTarget(family, target);
  return expr.xtTarget(name, revision, info);
}

export function xtMatch(match: XtMatch): XtPart {
  switch (match.kind) {
    case 'comment':
      return part('comment', 0, comment(match.comment));
    case 'conntrack':
      return part(
        'conntrack',
        3,
        conntrackStates(match.states.reduce((bits, state) => bits | CT_STATE[state], 0)),
      );
    case 'addrtype':
      return part('addrtype', 1, addrtypeLocal());
    case 'multiport':
      return part('multiport', 1, multiport(match.destinationPorts));
    case 'owner':
      return part('owner', 1, owner(match.uid.first, match.uid.last));
    case 'port':
      return part('sctp', 0, sctp(match.destinationPort));
  }
}

export function xtTarget(family: Family, target: XtTarget): XtPart {
  switch (target.kind) {
    case 'mark':
      return part('MARK', 2, words(target.value, target.mask));
    case 'dnat':
      return part('DNAT', 2, natRange2(target.to));
    case 'redirect':
      return part('REDIRECT', 0, natRange(family, target.port));
    case 'masquerade':
      return part('MASQUERADE', 0, natRange(family));
    case 'reject':
      return part('REJECT', 0, words(REJECT_WITH[family][target.with]));
  }
}

function part(name: string, revision: number, info: Uint8Array): XtPart {
  return { name, revision, info };
}

/** XT_CONNTRACK_STATE_BIT of xt_conntrack.h: INVALID 1, then 1 << (ctinfo + 1). */
const CT_STATE = { INVALID: 1, ESTABLISHED: 2, RELATED: 4, NEW: 8 } as const;
/** enum ipt_reject_with, enum ip6t_reject_with */
const REJECT_WITH = {
  ipv4: { 'tcp-reset': 7, 'icmp-port-unreachable': 3, 'icmp6-port-unreachable': 3 },
  ipv6: { 'tcp-reset': 6, 'icmp-port-unreachable': 4, 'icmp6-port-unreachable': 4 },
} as const;
/** NF_NAT_RANGE_* of linux/netfilter/nf_nat.h */
const MAP_IPS = 1;
const PROTO_SPECIFIED = 2;
const PROTO_OFFSET = 0x20;

/** struct xt_comment_info: 256 bytes, NUL-padded text. */
function comment(text: string): Uint8Array {
  const bytes = Buffer.alloc(256);
  bytes.write(text, 0, 255);
  return bytes;
}

/**
 * struct xt_conntrack_mtinfo3: 8 addresses of 16 bytes, then
 * ```
 * 128 expires_min u32 | 132 expires_max u32 | 136 l4proto u16 | 138 four be16 ports | 146 match_flags u16 |
 * 148 invert_flags u16 | 150 state_mask u16 | 152 status_mask u16 | 154 four high ports, to 162
 * ```
 * match_flags 1 = XT_CONNTRACK_STATE.
 */
function conntrackStates(states: number): Uint8Array {
  const bytes = Buffer.alloc(164);
  bytes.writeUInt16LE(1, 146);
  bytes.writeUInt16LE(states, 150);
  return bytes;
}

/** struct xt_addrtype_info_v1: source u16, dest u16 = 1 << RTN_LOCAL, flags u32. */
function addrtypeLocal(): Uint8Array {
  return Uint8Array.of(0, 0, 4, 0, 0, 0, 0, 0);
}

/** struct xt_multiport_v1: flags u8 (1 = destination), count u8, ports u16[15], pflags u8[15] (1 = begins a range), invert u8. */
function multiport(ports: readonly PortRange[]): Uint8Array {
  const bytes = Buffer.alloc(48);
  let count = 0;
  for (const { first, last } of ports) {
    if (last !== first) bytes[32 + count] = 1;
    bytes.writeUInt16LE(first, 2 + 2 * count++);
    if (last !== first) bytes.writeUInt16LE(last, 2 + 2 * count++);
  }
  if (count > 15) throw new Error(`a multiport match holds 15 ports, got ${count}`);
  bytes[0] = 1;
  bytes[1] = count;
  return bytes;
}

/** struct xt_owner_match_info: uid_min, uid_max, gid_min, gid_max u32, match u8 (1 = uid), invert u8. */
function owner(first: number, last: number): Uint8Array {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt32LE(first, 0);
  bytes.writeUInt32LE(last, 4);
  bytes[16] = 1;
  return bytes;
}

/**
 * struct xt_sctp_info: dpts u16[2], spts u16[2], chunkmap u32[64], chunk_match_type u32, flag_info u8[3][4], flag_count int,
 * flags u32 (2 = dport), invflags u32. iptables fills the unused chunk types with 255.
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
 * struct nf_nat_range2: flags u32, min_addr 16, max_addr 16, min_proto be16, max_proto be16, base_proto be16.
 * @param to `address[:port[-port[/base]]]`, IPv6 addresses in brackets before a port
 */
function natRange2(to: string): Uint8Array {
  const parts = /^\[?([^\]]*?)\]?(?::(\d+)(?:-(\d+)(?:\/(\d+))?)?)?$/.exec(
    to.includes('.') || to.startsWith('[') ? to : `[${to}]`,
  );
  const [, text = '', first, last = first, base] = parts ?? [];
  const target = parseAddress(text);
  if (target === undefined) throw new Error(`${to} is no destination`);
  const bytes = Buffer.alloc(48);
  bytes.set(addressBytes(target), 4);
  bytes.set(addressBytes(target), 20);
  bytes.writeUInt32LE(
    MAP_IPS | (first === undefined ? 0 : PROTO_SPECIFIED) | (base === undefined ? 0 : PROTO_OFFSET),
    0,
  );
  if (first !== undefined) bytes.writeUInt16BE(Number(first), 36);
  if (last !== undefined) bytes.writeUInt16BE(Number(last), 38);
  if (base !== undefined) bytes.writeUInt16BE(Number(base), 40);
  return bytes;
}

/**
 * IPv4: struct nf_nat_ipv4_multi_range_compat: rangesize u32 = 1, flags u32, min_ip, max_ip be32, min be16, max be16.
 * IPv6: struct nf_nat_range: flags u32, min_addr 16, max_addr 16, min_proto be16, max_proto be16.
 */
function natRange(family: Family, port?: number): Uint8Array {
  const bytes = Buffer.alloc(family === 'ipv4' ? 20 : 40);
  const flagsAt = family === 'ipv4' ? 4 : 0;
  const portAt = family === 'ipv4' ? 16 : 36;
  if (family === 'ipv4') bytes.writeUInt32LE(1, 0);
  if (port === undefined) return bytes;
  bytes.writeUInt32LE(PROTO_SPECIFIED, flagsAt);
  bytes.writeUInt16BE(port, portAt);
  bytes.writeUInt16BE(port, portAt + 2);
  return bytes;
}

function words(...values: number[]): Uint8Array {
  return Buffer.concat(values.map((value) => Buffer.of(value, value >>> 8, value >>> 16, value >>> 24)));
}
