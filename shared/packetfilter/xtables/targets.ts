/** The structs of xtables' targets (linux/netfilter/xt_*.h, nf_nat.h); see matches.ts. Numbers are host-endian unless marked be. */
import { addressBytes, addressFromBytes, formatAddress, parseAddress } from '../../net/address.ts';
import type { Family, Target } from '../ruleset.ts';
import type { XtExtension } from './matches.ts';

/** Targets that are stored as a struct; verdicts and jumps are not. */
export type XtTarget = Exclude<Target, { kind: 'jump' } | { kind: 'accept' | 'drop' | 'return' }>;

export function encodeXtTarget(family: Family, target: XtTarget): XtExtension {
  switch (target.kind) {
    case 'mark':
      return { name: 'MARK', revision: 2, info: u32(target.value, target.mask) };
    case 'dnat':
      return { name: 'DNAT', revision: 2, info: natRange2(target.to) };
    case 'redirect':
      return { name: 'REDIRECT', revision: 0, info: natRange(family, target.port) };
    case 'masquerade':
      return { name: 'MASQUERADE', revision: 0, info: natRange(family) };
    case 'reject':
      return { name: 'REJECT', revision: 0, info: u32(REJECT_WITH[family][target.with]) };
  }
}

/** @returns undefined for a target of another name */
export function decodeXtTarget(family: Family, name: string, info: Buffer): XtTarget | undefined {
  switch (name) {
    case 'MARK':
      return { kind: 'mark', value: info.readUInt32LE(0), mask: info.readUInt32LE(4) };
    case 'DNAT':
      return destination(family, info);
    case 'REDIRECT':
      return { kind: 'redirect', port: info.readUInt16BE(family === 'ipv4' ? 16 : 36) };
    case 'MASQUERADE':
      return { kind: 'masquerade' };
    case 'REJECT':
      return rejection(family, info.readUInt32LE(0));
    default:
      return undefined;
  }
}

/** enum ipt_reject_with, enum ip6t_reject_with */
const REJECT_WITH = {
  ipv4: { 'tcp-reset': 7, 'icmp-port-unreachable': 3, 'icmp6-port-unreachable': 3 },
  ipv6: { 'tcp-reset': 6, 'icmp-port-unreachable': 4, 'icmp6-port-unreachable': 4 },
} as const;

function rejection(family: Family, how: number): XtTarget | undefined {
  const names =
    family === 'ipv4'
      ? (['tcp-reset', 'icmp-port-unreachable'] as const)
      : (['tcp-reset', 'icmp6-port-unreachable'] as const);
  const known = names.find((name) => REJECT_WITH[family][name] === how);
  return known === undefined ? undefined : { kind: 'reject', with: known };
}

/** NF_NAT_RANGE_* of linux/netfilter/nf_nat.h */
const MAP_IPS = 1;
const PROTO_SPECIFIED = 2;
const PROTO_OFFSET = 0x20;

/**
 * struct nf_nat_range2
 * ```
 * 0 flags u32 | 4 min_addr 16 | 20 max_addr 16 | 36 min_proto be16 | 38 max_proto be16 | 40 base_proto be16
 * ```
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

function destination(family: Family, info: Buffer): XtTarget | undefined {
  const parsed = addressFromBytes(info.subarray(4, family === 'ipv4' ? 8 : 20));
  if (parsed === undefined) return undefined;
  const text = formatAddress(parsed);
  const flags = info.readUInt32LE(0);
  if ((flags & PROTO_SPECIFIED) === 0) return { kind: 'dnat', to: text };
  const [first, last, base] = [36, 38, 40].map((at) => info.readUInt16BE(at));
  const span = first === last ? `${first}` : `${first}-${last}`;
  const based = (flags & PROTO_OFFSET) === 0 ? span : `${span}/${base}`;
  return { kind: 'dnat', to: `${family === 'ipv4' ? text : `[${text}]`}:${based}` };
}

/**
 * ```
 * IPv4, struct nf_nat_ipv4_multi_range_compat   0 rangesize u32 = 1 | 4 flags u32 | 8 min_ip be32 | 12 max_ip be32 | 16 min be16 | 18 max be16
 * IPv6, struct nf_nat_range                     0 flags u32 | 4 min_addr 16 | 20 max_addr 16 | 36 min_proto be16 | 38 max_proto be16
 * ```
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

function u32(...values: number[]): Uint8Array {
  return Buffer.concat(values.map((value) => Buffer.of(value, value >>> 8, value >>> 16, value >>> 24)));
}
