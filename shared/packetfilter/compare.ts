import type { UnmanagedRule, Rule } from './ruleset.ts';
import { matchText, ruleText } from './iptables/render.ts';

/** Whether two rules do the same: everything equal, in whatever order their matches and conntrack states stand. */
export function sameRule(one: Rule, other: Rule): boolean {
  return ruleKey(one) === ruleKey(other);
}

/** The same text for every rule that does the same; for sets and maps of rules. */
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

/** The rules in their order, without those that do the same as an earlier one. */
export function distinctRules(rules: readonly Rule[]): Rule[] {
  const distinct = new Map<string, Rule>();
  for (const rule of rules) {
    const key = ruleKey(rule);
    if (!distinct.has(key)) distinct.set(key, rule);
  }
  return [...distinct.values()];
}
