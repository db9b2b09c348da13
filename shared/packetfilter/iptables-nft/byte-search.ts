import { addressBytes, networkOf, parseCidr } from '../../net/address.ts';
import type { PortRanges } from '../port-ranges.ts';
import type { Rule } from '../ruleset.ts';

/*
 * A chain may have ten thousand rules, so they are searched as the kernel's bytes (`indexOf` is native); only rules that contain the searched
 * bytes are decoded.
 */

/** Byte sequences that every listed rule equal to this one contains: of its addresses, comment and jump. */
export function bytePatternsOf(rule: Rule): readonly Buffer[] {
  const known = patterns.get(rule);
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
  patterns.set(rule, found);
  return found;
}

/** The most selective pattern; undefined for a rule without any. */
export function longestPattern(rule: Rule): Buffer | undefined {
  return bytePatternsOf(rule).reduce<Buffer | undefined>(
    (best, pattern) => (best === undefined || pattern.length > best.length ? pattern : best),
    undefined,
  );
}

/** A chain's name in a verdict, with the NUL that ends it: `CNI-1` does not find `CNI-10`. */
export function chainPattern(chain: string): Buffer {
  return Buffer.from(`${chain}\0`);
}

/** The offsets of the messages that contain a pattern, each once. @param datagram complete messages */
export function* messagesWith(datagram: Buffer, pattern: Buffer): Generator<number> {
  let message = 0;
  let next = 0;
  for (let found = datagram.indexOf(pattern); found >= 0; found = datagram.indexOf(pattern, next)) {
    while (next <= found) {
      message = next;
      next += (datagram.readUInt32LE(message) + 3) & ~3;
    }
    yield message;
  }
}

/** The offset of each message. */
export function* messagesOf(datagram: Buffer): Generator<number> {
  for (let at = 0; at < datagram.length; at += (datagram.readUInt32LE(at) + 3) & ~3) yield at;
}

const patterns = new WeakMap<Rule, readonly Buffer[]>();

/** The complete bytes of the prefix: the kernel compares at least these. */
function networkBytes(text: string): Buffer[] {
  const cidr = parseCidr(text);
  if (cidr === undefined) return [];
  return [Buffer.from(addressBytes(networkOf(cidr).address).subarray(0, Math.floor(cidr.prefix / 8)))];
}

/**
 * Multiport matches in the bytes of rules, in 32-bit words from the match's name on:
 *
 *     0..2  "multiport" NUL NUL NUL            6     flags u8 (1: destination) | count u8 | port u16
 *     3     attribute NFTA_MATCH_REV           7..13 14 more ports u16
 *     4     revision                           14..  per port, u8: begins a range that ends at the next port
 *     5     attribute NFTA_MATCH_INFO          17    last byte: inverted
 *
 * (linux/netfilter/xt_multiport.h, struct xt_multiport_v1, in host order)
 */

/**
 * Finds the messages that may be about one of these ports: those without a multiport match, with one that is not a plain list of destination
 * ports, or with one of the ports in it. It runs over every rule of the longest chain of a host in code that is not yet optimized, so a rule with
 * the layout of the one before it and a single port needs no function call.
 */
export class PortSearch {
  readonly #ports: PortRanges;
  readonly #wanted = new Uint8Array(0x10000);
  /** Offset of the match in the last rule that had one, in words from the rule's start: rules of one program have the same layout. */
  #lastOffset = 0;

  constructor(ports: PortRanges) {
    this.#ports = ports;
    for (const { first, last } of ports.disjoint()) this.#wanted.fill(1, first, last + 1);
  }

  /** @returns offsets. @param datagram complete messages */
  in(datagram: Buffer): number[] {
    const words = wordsOf(datagram);
    const wanted = this.#wanted;
    const found: number[] = [];
    let usual = this.#lastOffset;
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
    this.#lastOffset = usual;
    return found;
  }
}

/** True only if one of the rule's multiport matches excludes all of the ports. */
export function isSurelyNotFor(rule: Buffer, ports: PortRanges): boolean {
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
/** Flags: destination ports; count: 1. */
const SINGLE = 0x0101;

/** The word at which the next match begins; past the end if there is none. */
function nextName(datagram: Buffer, from: number): number {
  const found = datagram.indexOf(MULTIPORT, 4 * from);
  return found < 0 ? datagram.length : found >> 2;
}

/** A view if the bytes are aligned, else a copy. */
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

/** Whether a match has one of the ports, or is no plain list of destination ports (source ports, inverted). */
function mayHave(words: Uint32Array, at: number, ports: PortRanges): boolean {
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
    if (ports.overlaps({ first, last })) return true;
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
