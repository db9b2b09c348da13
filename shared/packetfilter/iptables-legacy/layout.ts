import type { Family } from '../ruleset.ts';

/**
 * Where the fields of struct ipt_entry and ip6t_entry stand:
 * ```
 * IPv4   0 src | 4 dst | 8 smsk | 12 dmsk | 16 iniface | 32 outiface | 48 iniface_mask | 64 outiface_mask |
 *        80 proto u16 | 82 flags | 83 invflags | 84 nfcache | 88 target_offset u16 | 90 next_offset u16 | 92 comefrom |
 *        96 counters | 112 matches
 * IPv6   0 src | 16 dst | 32 smsk | 48 dmsk | 64 iniface | 80 outiface | 96 iniface_mask | 112 outiface_mask |
 *        128 proto u16 | 130 tos | 131 flags | 132 invflags | 136 nfcache | 140 target_offset | 142 next_offset | 144 comefrom |
 *        152 counters | 168 matches
 * ```
 */
export interface Layout {
  readonly source: number;
  readonly destination: number;
  readonly addressBytes: number;
  /** The mask of an address stands this much behind it. */
  readonly maskBehind: number;
  readonly inInterface: number;
  readonly outInterface: number;
  readonly protocol: number;
  readonly flags: number;
  /** Of `flags`: the target is a goto. Everything else in there nobody here writes; IPv6 says with 1 that the protocol counts. */
  readonly plainFlags: readonly number[];
  /** Of `flags`, in a rule that names a protocol (IP6T_F_PROTO; IPv4 has none). */
  readonly protocolFlag: number;
  readonly inverted: number;
  readonly targetOffset: number;
  readonly nextOffset: number;
  /** Behind the entry's own fields. */
  readonly matches: number;
}

export const LAYOUTS: Readonly<Record<Family, Layout>> = {
  ipv4: {
    source: 0,
    destination: 4,
    addressBytes: 4,
    maskBehind: 8,
    inInterface: 16,
    outInterface: 32,
    protocol: 80,
    flags: 82,
    plainFlags: [0],
    protocolFlag: 0,
    inverted: 83,
    targetOffset: 88,
    nextOffset: 90,
    matches: 112,
  },
  ipv6: {
    source: 0,
    destination: 16,
    addressBytes: 16,
    maskBehind: 32,
    inInterface: 64,
    outInterface: 80,
    protocol: 128,
    flags: 131,
    plainFlags: [0, 1],
    protocolFlag: 1,
    inverted: 132,
    targetOffset: 140,
    nextOffset: 142,
    matches: 168,
  },
};

/** XT_INV_* / IPT_INV_* / IP6T_INV_* */
export const Inverted = { inInterface: 1, outInterface: 2, source: 8, destination: 0x10 } as const;

/** Verdicts of a standard target that are no offset: -NF_DROP - 1, -NF_ACCEPT - 1, XT_RETURN. */
export const VERDICTS = { drop: -1, accept: -2, return: -5 } as const;

/** struct xt_entry_target and xt_entry_match: size u16, name 29, revision u8; then data, which begins here. */
export const PART_DATA = 32;

/** A zero-terminated name in a field of `length` bytes. */
export function nameAt(
  bytes: Buffer,
  at: number,
  length: number,
  encoding: 'utf8' | 'latin1' = 'utf8',
): string {
  const field = bytes.subarray(at, at + length);
  const end = field.indexOf(0);
  return field.toString(encoding, 0, end < 0 ? length : end);
}

/**
 * A table's entries for looking at thousands of them in a process that has just started: there, an element of a typed array costs a
 * tenth of what Buffer's methods cost. Entries and their parts begin at multiples of 8 (XT_ALIGN).
 */
export class BlobView {
  readonly family: Family;
  readonly layout: Layout;
  readonly entries: Buffer;
  /** Names of chains by the offset of their first rule: where jumps lead. */
  readonly heads: ReadonlyMap<number, string>;
  readonly #halves: Uint16Array;
  readonly #words: Int32Array;

  constructor(family: Family, entries: Buffer, heads: ReadonlyMap<number, string>) {
    const { buffer, byteOffset, length } = entries;
    this.family = family;
    this.layout = LAYOUTS[family];
    this.entries = entries;
    this.heads = heads;
    this.#halves = new Uint16Array(buffer, byteOffset, length >> 1);
    this.#words = new Int32Array(buffer, byteOffset, length >> 2);
  }

  /** The 16-bit number at an even offset. */
  half(at: number): number {
    return this.#halves[at >> 1] ?? 0;
  }

  /** Offset of the entry behind this one. */
  next(entry: number): number {
    return entry + (this.#halves[(entry + this.layout.nextOffset) >> 1] ?? 0);
  }

  target(entry: number): number {
    return entry + (this.#halves[(entry + this.layout.targetOffset) >> 1] ?? 0);
  }

  /** The verdict of a standard target, which has no name: an offset, or a negative number; undefined for any other target. */
  verdict(entry: number): number | undefined {
    const target = this.target(entry);
    return this.#halves[(target + 2) >> 1] === 0 ? this.#words[(target + PART_DATA) >> 2] : undefined;
  }

  setVerdict(entry: number, verdict: number): void {
    this.#words[(this.target(entry) + PART_DATA) >> 2] = verdict;
  }

  /** Whether the entry is of the target ERROR: such a one begins each chain of somebody's making, and ends the table. */
  isHead(entry: number): boolean {
    const name = (this.target(entry) + 2) >> 1;
    return this.#halves[name] === ER && this.#halves[name + 1] === RO && this.#halves[name + 2] === R_AND_NUL;
  }
}

/** "ERROR" with its NUL, two bytes at a time. */
const ER = 0x5245;
const RO = 0x4f52;
const R_AND_NUL = 0x52;
