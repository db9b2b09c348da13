/** The other way of xtables.ts. What is read here is encoded again and compared, so fields that nobody sets need no look. */
import { addressFromBytes, formatAddress } from '../../net/address.ts';
import { attributeOf, textOf } from '../nftables/nlattr.ts';
import type { Family, Match, PortRange, Target } from '../ruleset.ts';

/** @param data NFTA_EXPR_DATA of a `match` expression */
export function decodeXtMatch(data: Buffer): Match | undefined {
  const { name, info } = parts(data);
  return readXtMatch(name, info);
}

/** @param data NFTA_EXPR_DATA of a `target` expression */
export function decodeXtTarget(family: Family, data: Buffer): Target | undefined {
  const { name, info } = parts(data);
  return readXtTarget(family, name, info);
}

export function readXtMatch(name: string, info: Buffer): Match | undefined {
  switch (name) {
    case 'comment':
      return { kind: 'comment', comment: textOf(info) };
    case 'conntrack':
      return info.length < 152 ? undefined : { kind: 'conntrack', states: statesOf(info.readUInt16LE(150)) };
    case 'addrtype':
      return { kind: 'addrtype', destinationType: 'LOCAL' };
    case 'multiport':
      // A run that begins at the last place has no end: nobody can write it.
      return info[46] !== 0 ? undefined : { kind: 'multiport', destinationPorts: portsOf(info) };
    case 'owner':
      return { kind: 'owner', uid: { first: info.readUInt32LE(0), last: info.readUInt32LE(4) } };
    case 'sctp':
      return { kind: 'port', destinationPort: { first: info.readUInt16LE(0), last: info.readUInt16LE(2) } };
    default:
      return undefined;
  }
}

export function readXtTarget(family: Family, name: string, info: Buffer): Target | undefined {
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

const STATES = [
  ['INVALID', 1],
  ['NEW', 8],
  ['RELATED', 4],
  ['ESTABLISHED', 2],
] as const;

function parts(data: Buffer): { name: string; info: Buffer } {
  return {
    name: textOf(attributeOf(data, 1) ?? Buffer.alloc(0)),
    info: attributeOf(data, 3) ?? Buffer.alloc(0),
  };
}

function statesOf(bits: number): ('NEW' | 'RELATED' | 'ESTABLISHED' | 'INVALID')[] {
  return STATES.filter(([, bit]) => (bits & bit) !== 0).map(([state]) => state);
}

export function portsOf(info: Buffer): PortRange[] {
  const ports: PortRange[] = [];
  const count = Math.min(info[1] ?? 0, 15);
  for (let at = 0; at < count; at++) {
    const first = info.readUInt16LE(2 + 2 * at);
    const ranged = info[32 + at] === 1;
    if (ranged) at += 1;
    ports.push({ first, last: ranged ? info.readUInt16LE(2 + 2 * at) : first });
  }
  return ports;
}

function destination(family: Family, info: Buffer): Target | undefined {
  const parsed = addressFromBytes(info.subarray(4, family === 'ipv4' ? 8 : 20));
  if (parsed === undefined) return undefined;
  const text = formatAddress(parsed);
  const flags = info.readUInt32LE(0);
  if ((flags & 2) === 0) return { kind: 'dnat', to: text };
  const [first, last, base] = [36, 38, 40].map((at) => info.readUInt16BE(at));
  const span = first === last ? `${first}` : `${first}-${last}`;
  const based = (flags & 0x20) === 0 ? span : `${span}/${base}`;
  return { kind: 'dnat', to: `${family === 'ipv4' ? text : `[${text}]`}:${based}` };
}

function rejection(family: Family, how: number): Target | undefined {
  if (how === (family === 'ipv4' ? 7 : 6)) return { kind: 'reject', with: 'tcp-reset' };
  if (family === 'ipv4' && how === 3) return { kind: 'reject', with: 'icmp-port-unreachable' };
  return family === 'ipv6' && how === 4 ? { kind: 'reject', with: 'icmp6-port-unreachable' } : undefined;
}
