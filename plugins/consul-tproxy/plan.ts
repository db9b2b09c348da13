import type { Family, Rule, TableName } from '../../shared/packetfilter/ruleset.ts';
import { planFilter } from './plan-filter.ts';
import { planNat } from './plan-nat.ts';
import type { TproxyOptions } from './options.ts';
import type { ProxyRequest } from './request.ts';

/** One table of one family as the plugin wants it: its own chains whole, and the jumps to them in the built-in chains. */
export interface TablePlan {
  readonly family: Family;
  readonly table: TableName;
  readonly chains: readonly { readonly chain: string; readonly rules: readonly Rule[] }[];
  readonly hooks: readonly { readonly chain: string; readonly rules: readonly Rule[] }[];
}

/**
 * All rules of one allocation, independent of what writes them. Pure: the same request and options give the same plan.
 * Tables that the plan does not name hold nothing of ours afterwards.
 */
export function planRules(request: ProxyRequest, options: TproxyOptions): readonly TablePlan[] {
  const families = ['ipv4', 'ipv6'] as const;
  const tables = families.flatMap((family) => [
    planNat(family, request, options),
    planFilter(family, request, options),
  ]);
  return tables.filter(({ chains }) => chains.length > 0);
}
