import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import { encodeStatements } from './encode.ts';
import { addRule } from './messages.ts';
import type { NftRule } from './model.ts';
import type { StandingRule } from './reader.ts';

/**
 * Requests for the rules that a chain lacks, each beside those of its neighbours in `wanted` that are present, else at the end.
 * @param present all rules of the chain
 */
export function placedRules(present: readonly StandingRule[], wanted: readonly NftRule[]): NetlinkRequest[] {
  const byComment = Map.groupBy(present.entries(), ([, { comment }]) => comment);
  const find = (rule: NftRule): number =>
    byComment.get(rule.comment)?.find(([, standing]) => standing.is(rule))?.[0] ?? -1;
  const found = wanted.map(find);
  const firstPresent = found.find((at) => at >= 0);
  let before = firstPresent;
  return wanted.flatMap((rule, at) => {
    const own = found[at] ?? -1;
    if (own >= 0) {
      before = own + 1;
      return [];
    }
    const next = before === undefined ? undefined : present[before];
    const body = {
      expressions: encodeStatements(rule.chain.table.family, rule.statements),
      comment: rule.comment,
    };
    return [addRule(rule.chain, body, next === undefined ? 'last' : { before: next.handle })];
  });
}
