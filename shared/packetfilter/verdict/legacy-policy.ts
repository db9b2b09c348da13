import { readTableBlob } from '../../kernel/legacy-table.ts';
import { LAYOUTS } from '../iptables-legacy/layout.ts';
import type { Family } from '../ruleset.ts';

/**
 * The policy of chain FORWARD of iptables-legacy's table filter, in the network namespace that we are in.
 * @returns undefined when the table is not in use
 */
export function legacyForwardPolicy(family: Family): 'accept' | 'drop' | undefined {
  const blob = readTableBlob(family, 'filter');
  const policy = blob?.underflow[FORWARD];
  if (blob === undefined || policy === undefined) return undefined;
  const target = policy + blob.entries.readUInt16LE(policy + LAYOUTS[family].targetOffset);
  return blob.entries.readInt32LE(target + VERDICT) === DROP ? 'drop' : 'accept';
}

/** NF_INET_FORWARD */
const FORWARD = 2;
/** struct xt_standard_target: size u16, name 29, revision u8, verdict i32. NF_DROP is written -NF_DROP - 1. */
const VERDICT = 32;
const DROP = -1;
