import { xtMatch } from '../iptables-nft/xtables.ts';
import type { Match, PortRange, Rule } from '../ruleset.ts';
import { encodePart } from './part.ts';

/**
 * A match as struct xt_entry_match. The extensions are those of iptables-nft, which keeps the same structs, but for two that it has
 * expressions for: ports of tcp and udp, and marks.
 * @returns undefined for words of an operator's, and for what iptables would refuse
 */
export function encodeMatch(protocol: Rule['protocol'], match: Match): Buffer | undefined {
  switch (match.kind) {
    case 'rawArgs':
      return undefined;
    case 'mark':
      return encodePart({ name: 'mark', revision: 1, info: mark(match) });
    case 'port':
      return isRange(match.destinationPort) ? portMatch(protocol, match) : undefined;
    case 'comment':
      return Buffer.byteLength(match.comment) <= LONGEST_COMMENT ? encodePart(xtMatch(match)) : undefined;
    case 'conntrack':
      return match.states.length > 0 ? encodePart(xtMatch(match)) : undefined;
    case 'multiport':
      return isPortList(protocol, match.destinationPorts) ? encodePart(xtMatch(match)) : undefined;
    case 'addrtype':
    case 'owner':
      return encodePart(xtMatch(match));
  }
}

/** Whether iptables takes ports with it. */
export function hasPorts(protocol: Rule['protocol']): boolean {
  return protocol === 'tcp' || protocol === 'udp' || protocol === 'sctp';
}

export function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 0 && port <= HIGHEST_PORT;
}

const HIGHEST_PORT = 0xffff;
/** XT_MAX_COMMENT_LEN without its NUL */
const LONGEST_COMMENT = 255;
/** XT_MULTI_PORTS */
const MOST_PORTS = 15;

function isRange({ first, last }: PortRange): boolean {
  return isPort(first) && isPort(last) && first <= last;
}

function isPortList(protocol: Rule['protocol'], ranges: readonly PortRange[]): boolean {
  const places = ranges.reduce((sum, { first, last }) => sum + (first === last ? 1 : 2), 0);
  return hasPorts(protocol) && places > 0 && places <= MOST_PORTS && ranges.every(isRange);
}

function portMatch(protocol: Rule['protocol'], match: Extract<Match, { kind: 'port' }>): Buffer | undefined {
  if (protocol === 'sctp') return encodePart(xtMatch(match));
  if (protocol !== 'tcp' && protocol !== 'udp') return undefined;
  return encodePart({ name: protocol, revision: 0, info: ports(protocol, match.destinationPort) });
}

/**
 * struct xt_tcp and xt_udp; an unnamed source port is any.
 * ```
 * tcp   0 spts u16 × 2 | 4 dpts u16 × 2 | 8 option u8 | 9 flg_mask u8 | 10 flg_cmp u8 | 11 invflags u8
 * udp   0 spts u16 × 2 | 4 dpts u16 × 2 | 8 invflags u8 | 9 padding
 * ```
 */
function ports(protocol: 'tcp' | 'udp', { first, last }: PortRange): Buffer {
  const info = Buffer.alloc(protocol === 'tcp' ? 12 : 10);
  info.writeUInt16LE(HIGHEST_PORT, 2);
  info.writeUInt16LE(first, 4);
  info.writeUInt16LE(last, 6);
  return info;
}

/** struct xt_mark_mtinfo1: mark u32, mask u32, invert u8. */
function mark({ value, mask, negated }: Extract<Match, { kind: 'mark' }>): Buffer {
  const info = Buffer.alloc(12);
  info.writeUInt32LE(value, 0);
  info.writeUInt32LE(mask, 4);
  info[8] = negated === true ? 1 : 0;
  return info;
}
