import type { UnmanagedRule, Rule, TableChange, TableState } from './ruleset.ts';
import { isUnmanaged, sameRule } from './compare.ts';
import { ruleText } from './iptables/render.ts';

/**
 * For CHECK: what of a change is not in the table, each in words that name chain and rule; empty when all is there.
 * Only absence counts. A rule more, or another order, is no reason to have a healthy workload restarted.
 */
export function missingFrom(
  state: TableState,
  change: Pick<TableChange, 'ensureChains' | 'setChains' | 'setJumps' | 'ensureRules'>,
): string[] {
  const missing: string[] = [];
  const where = `table ${state.table} (${state.family})`;
  const needChain = (chain: string): void => {
    if (!state.chains.has(chain)) missing.push(`chain ${chain} is missing from ${where}`);
  };
  const needRule = (chain: string, rule: Rule, candidates: () => readonly (Rule | UnmanagedRule)[]): void => {
    if (state.holds(chain, rule)) return;
    if (hasRawArgs(rule) && standsAmong(candidates(), rule)) return;
    missing.push(`rule is missing from chain ${chain} of ${where}: ${ruleText(rule)}`);
  };
  for (const chain of change.ensureChains ?? []) needChain(chain);
  for (const { chain, rules } of change.setChains ?? []) {
    needChain(chain);
    for (const rule of rules) needRule(chain, rule, () => state.chains.get(chain) ?? []);
  }
  for (const { chain, to, rules } of change.setJumps ?? []) {
    for (const rule of rules) needRule(chain, rule, () => state.jumps(chain, to));
  }
  for (const { chain, rule } of change.ensureRules ?? []) {
    needRule(chain, rule, () => state.chains.get(chain) ?? []);
  }
  return missing;
}

/**
 * Whether one of the rules is the wanted one.
 * Words that an operator wrote may come back from the kernel in another spelling that we cannot know to be the same, so there a
 * rule that agrees in everything else counts.
 */
export function standsAmong(candidates: readonly (Rule | UnmanagedRule)[], wanted: Rule): boolean {
  const rules = candidates.filter((rule): rule is Rule => !isUnmanaged(rule));
  if (rules.some((rule) => sameRule(rule, wanted))) return true;
  if (!hasRawArgs(wanted)) return false;
  return rules.some((rule) => hasRawArgs(rule) && sameRule(withoutRawArgs(rule), withoutRawArgs(wanted)));
}

function hasRawArgs(rule: Rule): boolean {
  return rule.matches?.some(({ kind }) => kind === 'rawArgs') === true;
}

function withoutRawArgs(rule: Rule): Rule {
  return { ...rule, matches: rule.matches?.filter(({ kind }) => kind !== 'rawArgs') ?? [] };
}
