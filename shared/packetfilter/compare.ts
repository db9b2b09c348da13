import type { Rule, TableChange, TableState, UnmanagedRule } from './ruleset.ts';
import { matchText, ruleText } from './iptables/render.ts';

/** Whether two rules are equal, except for the order of their matches and conntrack states. */
export function sameRule(one: Rule, other: Rule): boolean {
  return ruleKey(one) === ruleKey(other);
}

/** The same text for equal rules: a key for sets and maps. */
export function ruleKey(rule: Rule): string {
  const matches = rule.matches ?? [];
  if (matches.length < 2) return ruleText(rule);
  const keyed = matches.map((match) => ({ match, key: matchText(match, rule.protocol) }));
  keyed.sort((one, other) => (one.key < other.key ? -1 : one.key > other.key ? 1 : 0));
  return ruleText({ ...rule, matches: keyed.map(({ match }) => match) });
}

export function isUnmanaged(rule: Rule | UnmanagedRule): rule is UnmanagedRule {
  return 'unmanaged' in rule;
}

/** The text of the rule's first comment. */
export function commentOf(rule: Rule): string | undefined {
  return rule.matches?.find((match) => match.kind === 'comment')?.comment;
}

/** The chain that the rule jumps to. */
export function jumpOf(rule: Rule | UnmanagedRule): string | undefined {
  return !isUnmanaged(rule) && rule.target.kind === 'jump' ? rule.target.chain : undefined;
}

/** The rules in their order, each once. */
export function distinctRules(rules: readonly Rule[]): Rule[] {
  const distinct = new Map<string, Rule>();
  for (const rule of rules) {
    const key = ruleKey(rule);
    if (!distinct.has(key)) distinct.set(key, rule);
  }
  return [...distinct.values()];
}

/**
 * For CHECK: the chains and rules of a change that the table lacks, one sentence each. Further rules, or another order, are no reason to have a
 * healthy workload restarted.
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
 * Whether one of the rules is the wanted one. iptables may print raw arguments in another spelling, so a rule with raw arguments counts if
 * everything else is equal.
 */
function standsAmong(candidates: readonly (Rule | UnmanagedRule)[], wanted: Rule): boolean {
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
