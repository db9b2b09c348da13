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
