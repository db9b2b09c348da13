import { attributeOf, textOf } from '../nftables/nlattr.ts';
import type { KnownPacket } from './packet.ts';
import type { Ternary } from './follow-rule.ts';

/**
 * Whether a match of xtables (what iptables-nft has no expression of its own for) holds for a packet.
 * @param data NFTA_MATCH_NAME (1), _REV (2), _INFO (3)
 */
export function matchesXtables(data: Buffer, packet: KnownPacket): Ternary {
  const name = textOf(attributeOf(data, 1) ?? Buffer.alloc(0));
  const info = attributeOf(data, 3) ?? Buffer.alloc(0);
  if (name === 'comment') return 'yes';
  if (name !== 'conntrack' || (attributeOf(data, 2)?.readUInt32BE() ?? 0) < 2) return 'maybe';
  return matchesConntrack(info, packet);
}

/**
 * struct xt_conntrack_mtinfo2 and 3 of linux/netfilter/xt_conntrack.h: `146 match_flags u16 | 148 invert_flags u16 |
 * 150 state_mask u16`; XT_CONNTRACK_STATE is 1. Any other test beside the state may fail.
 */
function matchesConntrack(info: Buffer, { state }: KnownPacket): Ternary {
  if (info.length < 152) return 'maybe';
  const tests = info.readUInt16LE(146);
  if ((tests & STATE) === 0) return 'maybe';
  const inverted = (info.readUInt16LE(148) & STATE) !== 0;
  const holds = ((info.readUInt16LE(150) & STATE_BITS[state]) !== 0) !== inverted;
  if (!holds) return 'no';
  return tests === STATE ? 'yes' : 'maybe';
}

const STATE = 1;
/** XT_CONNTRACK_STATE_BIT: 1 << (ctinfo % IP_CT_IS_REPLY + 1) */
const STATE_BITS = { established: 2, new: 8 } as const;
