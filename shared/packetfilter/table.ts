import { isUnmanaged, sameRule } from './compare.ts';
import { ruleText } from './iptables/render.ts';
import type { Family, UnmanagedRule, PortRange, Rule, TableName, TableState } from './ruleset.ts';

/** A rule in its chain. Drivers subclass it to remember how the kernel knows the rule. */
export interface Entry {
  /** In iptables' words; unique among the rules of a chain that do different things. */
  readonly text: string;
  readonly rule: Rule | UnmanagedRule;
  /** Whether the rule jumps or goes to this chain; unmanaged rules are looked at too. */
  jumpsTo(chain: string): boolean;
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
  mayJumpTo?(chain: string): Iterable<Entry>;
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

  jumpsTo(chain: string): boolean {
    return this.rule.target.kind === 'jump' && this.rule.target.chain === chain;
  }
}

/** The rules that do what a rule says. */
export function* doing(rules: Rules, wanted: Rule): Generator<Entry> {
  const text = ruleText(wanted);
  for (const entry of rules.mayDo?.(wanted) ?? rules) if (does(entry, wanted, text)) yield entry;
}

/** The rules that jump or go to a chain. */
export function* jumpingTo(rules: Rules, chain: string): Generator<Entry> {
  for (const entry of rules.mayJumpTo?.(chain) ?? rules) if (entry.jumpsTo(chain)) yield entry;
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
  return !isUnmanaged(entry.rule) && sameRule(entry.rule, wanted);
}

/** Whether two lists have a port in common. */
export function haveCommonPort(some: readonly PortRange[], others: readonly PortRange[]): boolean {
  return some.some((one) => others.some((other) => one.first <= other.last && other.first <= one.last));
}

/**
 * A table on its way from what stands in the kernel to what shall stand there. Entries that survive stay the same objects in
 * the same order, so that the difference (diff.ts) is a matter of identity and unmanaged rules are never moved or rewritten.
 */
export interface Table {
  readonly family: Family;
  readonly table: TableName;
  readonly chains: ReadonlyMap<string, Rules>;
  /** Of the kernel's chains, where the reader knows them: not over netlink. */
  readonly policies?: ReadonlyMap<string, 'accept' | 'drop'>;
  /** Chains that a change fills anew: they may be flushed, while others lose only the rules that must go. */
  readonly rewritten?: ReadonlySet<string>;
  /** Chains that differ from the table this one was made of; undefined: deleted. Left out: as read. */
  readonly touched?: ReadonlyMap<string, Rules | undefined>;
  /** Names of the chains that hold rules leading to a chain, when that is cheaper than looking into all. */
  readonly holders?: (chain: string) => readonly string[];
}

/** Whether the kernel has to be told anything: entries that stay are the same objects, in the same order. */
export function differs(before: Table, after: Table): boolean {
  return [...(after.touched ?? [])].some(([chain, wanted]) => {
    const standing = before.chains.get(chain);
    if (standing === wanted) return false;
    if (standing === undefined || wanted === undefined) return true;
    const [some, others] = [[...standing], [...wanted]];
    return some.length !== others.length || some.some((entry, at) => entry !== others[at]);
  });
}

/** The table as plans and callers of `read` see it: rules parsed when they are looked at, chain by chain. */
export function stateOf({ family, table, chains, policies = new Map() }: Table): TableState {
  const rules = (chain: string): Rules => chains.get(chain) ?? [];
  return {
    family,
    table,
    policies,
    chains: new ParsedChains(chains),
    jumps: (chain, to) => Array.from(jumpingTo(rules(chain), to), ({ rule }) => rule),
    holds: (chain, wanted) => doing(rules(chain), wanted).next().done !== true,
    forPorts: (chain, ports) => Array.from(maybeFor(rules(chain), ports), ({ rule }) => rule),
  };
}

class ParsedChains implements ReadonlyMap<string, readonly (Rule | UnmanagedRule)[]> {
  readonly #chains: ReadonlyMap<string, Rules>;
  readonly #parsed = new Map<string, readonly (Rule | UnmanagedRule)[]>();

  constructor(chains: ReadonlyMap<string, Rules>) {
    this.#chains = chains;
  }

  get size(): number {
    return this.#chains.size;
  }

  has(chain: string): boolean {
    return this.#chains.has(chain);
  }

  get(chain: string): readonly (Rule | UnmanagedRule)[] | undefined {
    const rules = this.#chains.get(chain);
    if (rules === undefined) return undefined;
    const parsed = this.#parsed.get(chain) ?? Array.from(rules, ({ rule }) => rule);
    this.#parsed.set(chain, parsed);
    return parsed;
  }

  keys(): MapIterator<string> {
    return this.#chains.keys();
  }

  *entries(): MapIterator<[string, readonly (Rule | UnmanagedRule)[]]> {
    for (const chain of this.#chains.keys()) yield [chain, this.get(chain) ?? []];
  }

  *values(): MapIterator<readonly (Rule | UnmanagedRule)[]> {
    for (const [, rules] of this.entries()) yield rules;
  }

  [Symbol.iterator](): MapIterator<[string, readonly (Rule | UnmanagedRule)[]]> {
    return this.entries();
  }

  forEach(
    visit: (
      rules: readonly (Rule | UnmanagedRule)[],
      chain: string,
      map: ReadonlyMap<string, readonly (Rule | UnmanagedRule)[]>,
    ) => void,
  ): void {
    for (const [chain, rules] of this.entries()) visit(rules, chain, this);
  }
}
