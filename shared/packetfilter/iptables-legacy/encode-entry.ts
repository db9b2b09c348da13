import {
  encodeXtMark,
  encodeXtMatch,
  encodeXtPorts,
  hasPorts,
  MOST_PORTS,
  type XtExtension,
} from '../xtables/matches.ts';
import { encodeXtTarget } from '../xtables/targets.ts';
import { addressBytes, networkOf, parseAddress, parseCidr } from '../../net/address.ts';
import { Inverted, LAYOUTS, type Layout, PART_DATA, VERDICTS } from './layout.ts';
import {
  type Family,
  type Match,
  type Negatable,
  PROTOCOLS,
  type PortRange,
  type Rule,
  type Target,
} from '../ruleset.ts';

/** The other way of legacy-rule.ts: what is written here is read there as the same rule, and is what iptables-legacy itself writes. */

/**
 * A rule as struct ipt_entry or ip6t_entry; a jump's verdict is left at 0, because only the whole table knows where its chain is.
 * ```
 *  0                          matches              target_offset                     next_offset
 * +--------------------------+--------------------+---------------------------------+
 * | entry: see LAYOUTS       | xt_entry_match ... | xt_entry_target                 |
 * +--------------------------+--------------------+---------------------------------+
 * ```
 * @returns undefined for a rule that only iptables can put into bytes (an operator's own words), or would refuse
 */
export function encodeEntry(family: Family, rule: Rule): Buffer | undefined {
  const layout = LAYOUTS[family];
  const entry = encodeHeader(family, rule);
  const target = encodeTarget(family, rule);
  const matches = (rule.matches ?? []).map((match) => encodeMatch(rule.protocol, match));
  const parts = [entry, ...matches, target].filter((part) => part !== undefined);
  if (entry === undefined || target === undefined || parts.length < matches.length + 2) return undefined;
  const bytes = Buffer.concat(parts);
  bytes.writeUInt16LE(bytes.length - target.length, layout.targetOffset);
  bytes.writeUInt16LE(bytes.length, layout.nextOffset);
  return bytes;
}

function encodeHeader(family: Family, rule: Rule): Buffer | undefined {
  const layout = LAYOUTS[family];
  const entry = Buffer.alloc(layout.matches);
  const { source, destination, inInterface, outInterface, protocol } = rule;
  const fitting =
    putAddress(entry, family, layout.source, source) &&
    putAddress(entry, family, layout.destination, destination) &&
    putInterface(entry, layout.inInterface, inInterface) &&
    putInterface(entry, layout.outInterface, outInterface);
  if (!fitting) return undefined;
  entry[layout.inverted] = inversions(rule);
  if (protocol === undefined) return entry;
  entry.writeUInt16LE(PROTOCOLS[protocol], layout.protocol);
  entry[layout.flags] = layout.protocolFlag;
  return entry;
}

function inversions({ source, destination, inInterface, outInterface }: Rule): number {
  const bit = (tested: Negatable | undefined, value: number): number =>
    tested?.negated === true ? value : 0;
  return (
    bit(source, Inverted.source) |
    bit(destination, Inverted.destination) |
    bit(inInterface, Inverted.inInterface) |
    bit(outInterface, Inverted.outInterface)
  );
}

/** The address with its host bits cleared, and its mask. @returns false when it is none of this family */
function putAddress(entry: Buffer, family: Family, at: number, tested: Negatable | undefined): boolean {
  if (tested === undefined) return true;
  const cidr = parseCidr(tested.value);
  // Every address and none: iptables leaves out the one and refuses the other.
  if (cidr === undefined || cidr.address.family !== family || cidr.prefix === 0) return false;
  const { maskBehind, addressBytes: length }: Layout = LAYOUTS[family];
  entry.set(addressBytes(networkOf(cidr).address), at);
  for (let bit = 0; bit < cidr.prefix; bit++) {
    const byte = at + maskBehind + (bit >> 3);
    entry[byte] = (entry[byte] ?? 0) | (0x80 >> (bit & 7));
  }
  return cidr.prefix <= 8 * length;
}

/** IFNAMSIZ with its NUL */
const INTERFACE_SIZE = 16;
const INTERFACE_MASK_BEHIND = 32;

/** The mask covers the NUL behind a whole name, and ends before the plus of a beginning. */
function putInterface(entry: Buffer, at: number, tested: Negatable | undefined): boolean {
  if (tested === undefined) return true;
  const name = Buffer.from(tested.value);
  if (name.length === 0 || name.length >= INTERFACE_SIZE || tested.value === '+') return false;
  entry.set(name, at);
  const covered = tested.value.endsWith('+') ? name.length - 1 : name.length + 1;
  entry.fill(0xff, at + INTERFACE_MASK_BEHIND, at + INTERFACE_MASK_BEHIND + covered);
  return true;
}

function encodeTarget(family: Family, { target, protocol }: Rule): Buffer | undefined {
  switch (target.kind) {
    case 'jump':
      return standardTarget(0);
    case 'accept':
    case 'drop':
    case 'return':
      return standardTarget(VERDICTS[target.kind]);
    case 'masquerade':
      return encodePart(encodeXtTarget(family, { kind: 'masquerade' }));
    case 'mark':
      return encodePart(encodeXtTarget(family, target));
    case 'dnat':
      return isDestination(family, target, hasPorts(protocol))
        ? encodePart(encodeXtTarget(family, target))
        : undefined;
    case 'redirect':
      return hasPorts(protocol) && isPort(target.port)
        ? encodePart(encodeXtTarget(family, target))
        : undefined;
    case 'reject':
      return REJECTIONS[family].includes(target.with)
        ? encodePart(encodeXtTarget(family, target))
        : undefined;
  }
}

/** struct xt_standard_target: xt_entry_target without a name, verdict i32. */
export function standardTarget(verdict: number): Buffer {
  const info = Buffer.alloc(4);
  info.writeInt32LE(verdict, 0);
  return encodePart({ name: '', revision: 0, info });
}

const REJECTIONS: Readonly<Record<Family, readonly string[]>> = {
  ipv4: ['tcp-reset', 'icmp-port-unreachable'],
  ipv6: ['tcp-reset', 'icmp6-port-unreachable'],
};

/** `10.0.0.2`, `10.0.0.2:80`, `10.0.0.2:8000-8099/8000`, `fd00::2`, `[fd00::2]:80`; ports only where the protocol has them. */
function isDestination(family: Family, { to }: Extract<Target, { kind: 'dnat' }>, ported: boolean): boolean {
  const parts = DESTINATIONS[family].exec(to)?.groups ?? {};
  const { address = '', ports } = parts;
  if (parseAddress(address)?.family !== family) return false;
  return ports === undefined || (ported && ports.split(/[-/]/).every((port) => isPort(Number(port))));
}

const DESTINATIONS: Readonly<Record<Family, RegExp>> = {
  ipv4: /^(?<address>[\d.]+)(?::(?<ports>\d+(?:-\d+(?:\/\d+)?)?))?$/,
  ipv6: /^(?:\[(?=.*\]:))?(?<address>[\da-f:.]+?)(?:\]:(?<ports>\d+(?:-\d+(?:\/\d+)?)?))?$/,
};

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
      return encodePart(encodeXtMark(match));
    case 'port':
      return isRange(match.destinationPort) ? portMatch(protocol, match) : undefined;
    case 'comment':
      return Buffer.byteLength(match.comment) <= LONGEST_COMMENT
        ? encodePart(encodeXtMatch(match))
        : undefined;
    case 'conntrack':
      return match.states.length > 0 ? encodePart(encodeXtMatch(match)) : undefined;
    case 'multiport':
      return isPortList(protocol, match.destinationPorts) ? encodePart(encodeXtMatch(match)) : undefined;
    case 'addrtype':
    case 'owner':
      return encodePart(encodeXtMatch(match));
  }
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 0 && port <= HIGHEST_PORT;
}

const HIGHEST_PORT = 0xffff;
/** XT_MAX_COMMENT_LEN without its NUL */
const LONGEST_COMMENT = 255;
function isRange({ first, last }: PortRange): boolean {
  return isPort(first) && isPort(last) && first <= last;
}

function isPortList(protocol: Rule['protocol'], ranges: readonly PortRange[]): boolean {
  const places = ranges.reduce((sum, { first, last }) => sum + (first === last ? 1 : 2), 0);
  return hasPorts(protocol) && places > 0 && places <= MOST_PORTS && ranges.every(isRange);
}

function portMatch(protocol: Rule['protocol'], match: Extract<Match, { kind: 'port' }>): Buffer | undefined {
  if (protocol === 'sctp') return encodePart(encodeXtMatch(match));
  if (protocol !== 'tcp' && protocol !== 'udp') return undefined;
  return encodePart(encodeXtPorts(protocol, match.destinationPort));
}

/**
 * struct xt_entry_match and xt_entry_target:
 * ```
 *  0          2            31            32                 size
 * +----------+------------+-------------+------------------+
 * | size u16 | name 29    | revision u8 | data, padded     |
 * +----------+------------+-------------+------------------+
 * ```
 * The kernel compares the size with its own struct's, padded to 8 bytes (XT_ALIGN).
 */
export function encodePart({ name, revision, info }: XtExtension): Buffer {
  const bytes = Buffer.alloc(PART_DATA + Math.ceil(info.length / 8) * 8);
  bytes.writeUInt16LE(bytes.length, 0);
  bytes.write(name, 2, 29);
  bytes[31] = revision;
  bytes.set(info, PART_DATA);
  return bytes;
}
