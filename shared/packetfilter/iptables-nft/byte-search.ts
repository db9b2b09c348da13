import { addressBytes, networkOf, parseCidr } from '../../net/address.ts';
import type { PortRange, Rule } from '../ruleset.ts';

/** Bytes without which a rule of the kernel cannot be what is looked for, and the messages of a listing that hold them. */

/** A rule with an address, a comment or a jump carries its bytes. Asked for many rules in turn. */
export function bytePatternsOf(rule: Rule): readonly Buffer[] {
  const known = needles.get(rule);
  if (known !== undefined) return known;
  const found = [
    ...[rule.source, rule.destination].flatMap((tested) =>
      tested === undefined ? [] : networkBytes(tested.value),
    ),
    ...(rule.matches ?? []).flatMap((match) =>
      match.kind === 'comment' ? [Buffer.from(match.comment)] : [],
    ),
    ...(rule.target.kind === 'jump' ? [chainPattern(rule.target.chain)] : []),
  ].filter(({ length }) => length > 0);
  needles.set(rule, found);
  return found;
}

/** The needle that is found least often by chance; undefined for a rule that holds nothing of its own. */
export function longestPattern(rule: Rule): Buffer | undefined {
  return bytePatternsOf(rule).reduce<Buffer | undefined>(
    (best, needle) => (best === undefined || needle.length > best.length ? needle : best),
    undefined,
  );
}

/** The name in a verdict, with the NUL that the kernel puts behind every string: `CNI-1` does not find `CNI-10`. */
export function chainPattern(chain: string): Buffer {
  return Buffer.from(`${chain}\0`);
}

/** Where the messages begin that hold a needle, each once. @param datagram whole messages, one behind the other */
export function* messagesWith(datagram: Buffer, needle: Buffer): Generator<number> {
  let message = 0;
  let next = 0;
  for (let found = datagram.indexOf(needle); found >= 0; found = datagram.indexOf(needle, next)) {
    while (next <= found) {
      message = next;
      next += (datagram.readUInt32LE(message) + 3) & ~3;
    }
    yield message;
  }
}

/** Where each message begins. */
export function* messagesOf(datagram: Buffer): Generator<number> {
  for (let at = 0; at < datagram.length; at += (datagram.readUInt32LE(at) + 3) & ~3) yield at;
}

const needles = new WeakMap<Rule, readonly Buffer[]>();

/** The whole bytes of the prefix: at least these are compared in the kernel. */
function networkBytes(text: string): Buffer[] {
  const cidr = parseCidr(text);
  if (cidr === undefined) return [];
  return [Buffer.from(addressBytes(networkOf(cidr).address).subarray(0, Math.floor(cidr.prefix / 8)))];
}

/**
 * Lists of destination ports in the bytes of rules. In words of 32 bits, from the match's name on:
 *
 *     0..2  "multiport" NUL NUL NUL            6     flags u8 (1: destination) | count u8 | port u16
 *     3     attribute NFTA_MATCH_REV           7..13 14 more ports u16
 *     4     revision                           14..  for each port, u8: it begins a run up to the next one
 *     5     attribute NFTA_MATCH_INFO          17    its last byte: inverted
 *
 * (linux/netfilter/xt_multiport.h, struct xt_multiport_v1, in host order)
 */

/**
 * Where the messages begin that may be for one of these ports: those with no list, with one that is not a plain list of destination ports, or with
 * one of the ports in it. This is asked of every rule of the longest chain of a host, by code that runs for the first time: hence no call for a
 * rule that is like the one before and has a single port.
 */
export class PortSearch {
  readonly #ports: readonly PortRange[];
  readonly #wanted = new Uint8Array(0x10000);
  /** Where the list was in the last rule that had one, in words from the rule's beginning: rules of one maker are alike. */
  #habit = 0;

  constructor(ports: readonly PortRange[]) {
    this.#ports = ports;
    for (const { first, last } of ports) this.#wanted.fill(1, first, last + 1);
  }

  /** @param datagram whole messages, one behind the other */
  in(datagram: Buffer): number[] {
    const words = wordsOf(datagram);
    const wanted = this.#wanted;
    const found: number[] = [];
    let usual = this.#habit;
    let known = -1;
    for (let at = 0, next = 0; at < words.length; at = next) {
      next = at + (((words[at] ?? 0) + 3) >> 2);
      let list = at + usual;
      if (
        list + LIST_WORDS > next ||
        words[list] !== NAME_0 ||
        words[list + 1] !== NAME_1 ||
        words[list + 2] !== NAME_2 ||
        words[list + 3] !== REVISION_HEADER ||
        words[list + 5] !== INFO_HEADER
      ) {
        if (known < at) known = nextName(datagram, at);
        list = known;
        if (!isList(words, list, next)) {
          found.push(4 * at);
          continue;
        }
        usual = list - at;
      }
      const head = words[list + 6] ?? 0;
      const isSingle = (head & 0xffff) === SINGLE && words[list + 14] === 0 && words[list + 17] === 0;
      if (isSingle ? wanted[head >>> 16] === 1 : mayHave(words, list, this.#ports)) found.push(4 * at);
    }
    this.#habit = usual;
    return found;
  }
}

/** Whether one of a rule's lists has none of the ports. Without a list that can be read, nothing is sure. */
export function isSurelyNotFor(rule: Buffer, ports: readonly PortRange[]): boolean {
  if (!rule.includes(MULTIPORT)) return false;
  const words = wordsOf(Buffer.concat([rule], (rule.length + 3) & ~3));
  return words.some(
    (word, at) => word === NAME_0 && isList(words, at, words.length) && !mayHave(words, at, ports),
  );
}

const MULTIPORT = Buffer.from('multiport\0\0\0');
const [NAME_0 = 0, NAME_1 = 0, NAME_2 = 0] = wordsOf(MULTIPORT);
const LIST_WORDS = 18;
/** Length u16, type u16: of 4 and of 48 bytes. */
const REVISION_HEADER = 0x00020008;
const INFO_HEADER = 0x00030034;
/** One port, and it is the destination's. */
const SINGLE = 0x0101;

/** The word where the name stands next; behind everything when it does not. */
function nextName(datagram: Buffer, from: number): number {
  const found = datagram.indexOf(MULTIPORT, 4 * from);
  return found < 0 ? datagram.length : found >> 2;
}

/** A view where the bytes lie well, else a copy. */
function wordsOf(bytes: Buffer): Uint32Array {
  const whole = bytes.length >> 2;
  if (bytes.byteOffset % 4 === 0) return new Uint32Array(bytes.buffer, bytes.byteOffset, whole);
  return new Uint32Array(Uint8Array.from(bytes.subarray(0, 4 * whole)).buffer);
}

function isList(words: Uint32Array, at: number, end: number): boolean {
  return (
    at + LIST_WORDS <= end &&
    words[at] === NAME_0 &&
    words[at + 1] === NAME_1 &&
    words[at + 2] === NAME_2 &&
    words[at + 3] === REVISION_HEADER &&
    words[at + 5] === INFO_HEADER
  );
}

/** Whether a list has one of the ports, or is no list of destination ports: source ports and inverted lists are to be looked at. */
function mayHave(words: Uint32Array, at: number, ports: readonly PortRange[]): boolean {
  const head = words[at + 6] ?? 0;
  const isInverted = (words[at + 17] ?? 0) >>> 24 !== 0;
  if ((head & 0xff) !== DESTINATION || isInverted) return true;
  const count = (head >>> 8) & 0xff;
  if (count > MOST_PORTS) return true;
  for (let index = 0; index < count; index++) {
    const first = portAt(words, at, index);
    const begins = ((words[at + 14 + (index >> 2)] ?? 0) >>> (8 * (index & 3))) & 0xff;
    if (begins !== 0) index += 1;
    const last = portAt(words, at, index);
    for (const range of ports) if (range.first <= last && first <= range.last) return true;
  }
  return false;
}

function portAt(words: Uint32Array, at: number, index: number): number {
  const word = words[at + 6 + ((index + 1) >> 1)] ?? 0;
  return index % 2 === 0 ? word >>> 16 : word & 0xffff;
}

/** XT_MULTIPORT_DESTINATION, XT_MULTI_PORTS */
const DESTINATION = 1;
const MOST_PORTS = 15;
