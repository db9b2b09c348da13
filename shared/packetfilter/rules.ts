import type { ForeignRule, PortRange, Rule } from './ruleset.ts';
import { isForeign, sameRule } from './compare.ts';
import { ruleText } from './iptables/render.ts';

/** A rule in its chain. Drivers subclass it to remember how the kernel knows the rule. */
export interface Entry {
  /** In iptables' words; unique among the rules of a chain that do different things. */
  readonly text: string;
  readonly rule: Rule | ForeignRule;
  /** Whether the rule jumps or goes to this chain; foreign rules are looked at too. */
  leadsTo(chain: string): boolean;
  /** True only for a rule that surely does something else; spares understanding it. */
  cannotBe?(wanted: Rule): boolean;
  /** True only for a rule whose multiport list surely has none of these ports. */
  cannotBeFor?(ports: readonly PortRange[]): boolean;
  /** The kernel's own number for the rule: it is deleted by this and not by what it says, so copies do not matter. */
  readonly handle?: bigint;
}

/**
 * The rules of a chain in their order: a plain array, or a list that knows how to find some without looking at each, because a chain may
 * hold ten thousand. What the optional questions give, in the chain's order, is every rule that may be meant, and few others. An answer may
 * be looked at one by one: the rest is found when it is asked for.
 */
export interface Rules extends Iterable<Entry> {
  /** All that do what the rule says. */
  mayDo?(wanted: Rule): Iterable<Entry>;
  /** All that jump or go to the chain. */
  mayLeadTo?(chain: string): Iterable<Entry>;
  /** All but those that {@link Entry.cannotBeFor} excludes. */
  mayBeFor?(ports: readonly PortRange[]): Iterable<Entry>;
}

/** A rule that is not in the kernel yet. */
export class NewRule implements Entry {
  readonly rule: Rule;
  readonly text: string;

  constructor(rule: Rule) {
    this.rule = rule;
    this.text = ruleText(rule);
  }

  leadsTo(chain: string): boolean {
    return this.rule.target.kind === 'jump' && this.rule.target.chain === chain;
  }
}

/** The rules that do what a rule says. */
export function* doing(rules: Rules, wanted: Rule): Generator<Entry> {
  const text = ruleText(wanted);
  for (const entry of rules.mayDo?.(wanted) ?? rules) if (does(entry, wanted, text)) yield entry;
}

/** The rules that jump or go to a chain. */
export function* leadingTo(rules: Rules, chain: string): Generator<Entry> {
  for (const entry of rules.mayLeadTo?.(chain) ?? rules) if (entry.leadsTo(chain)) yield entry;
}

/** The rules that are not surely for other destination ports than these. */
export function* maybeFor(rules: Rules, ports: readonly PortRange[]): Generator<Entry> {
  for (const entry of rules.mayBeFor?.(ports) ?? rules) if (entry.cannotBeFor?.(ports) !== true) yield entry;
}

/** Whether an entry does what a rule says. Texts first: nearly always they decide, and the entry need not be parsed. */
export function does(entry: Entry, wanted: Rule, text = ruleText(wanted)): boolean {
  if (entry.cannotBe?.(wanted) === true) return false;
  if (entry.text === text) return true;
  // A rule with fewer than two matches has only one spelling.
  if ((wanted.matches?.length ?? 0) < 2) return false;
  return !isForeign(entry.rule) && sameRule(entry.rule, wanted);
}

/** Whether two lists have a port in common. */
export function haveCommonPort(some: readonly PortRange[], others: readonly PortRange[]): boolean {
  return some.some((one) => others.some((other) => one.first <= other.last && other.first <= one.last));
}
