/** The other way of legacy-rule.ts: what is written here is read there as the same rule, and is what iptables-legacy itself writes. */
import { addressBytes, networkOf, parseAddress, parseCidr } from '../../net/address.ts';
import { xtTarget } from '../iptables-nft/xtables.ts';
import { type Family, type Negatable, PROTOCOLS, type Rule, type Target } from '../ruleset.ts';
import { encodeMatch, hasPorts, isPort } from './encode-match.ts';
import { Inverted, LAYOUTS, VERDICTS, type Layout } from './layout.ts';
import { encodePart } from './part.ts';

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
      return encodePart(xtTarget(family, { kind: 'masquerade' }));
    case 'mark':
      return encodePart(xtTarget(family, target));
    case 'dnat':
      return isDestination(family, target, hasPorts(protocol))
        ? encodePart(xtTarget(family, target))
        : undefined;
    case 'redirect':
      return hasPorts(protocol) && isPort(target.port) ? encodePart(xtTarget(family, target)) : undefined;
    case 'reject':
      return REJECTIONS[family].includes(target.with) ? encodePart(xtTarget(family, target)) : undefined;
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
