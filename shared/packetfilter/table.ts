import type { Family, ForeignRule, PortRange, Rule, TableName, TableState } from './ruleset.ts';
import { isForeign, sameRule } from './compare.ts';
import { ruleText } from './iptables/render.ts';

/**
 * A table on its way from what stands in the kernel to what shall stand there. Entries that survive stay the same objects in
 * the same order, so that the difference (diff.ts) is a matter of identity and foreign rules are never moved or rewritten.
 */
export interface Table {
  readonly family: Family;
  readonly table: TableName;
  readonly chains: ReadonlyMap<string, readonly Entry[]>;
  /** Chains that a change fills anew: they may be flushed, while others lose only the rules that must go. */
  readonly rewritten?: ReadonlySet<string>;
  /** Chains that differ from the table this one was made of; undefined: deleted. Left out: as read. */
  readonly touched?: ReadonlyMap<string, readonly Entry[] | undefined>;
  /** Names of the chains that hold rules leading to a chain, when that is cheaper than looking into all. */
  readonly holders?: (chain: string) => readonly string[];
}

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

/** Whether the kernel has to be told anything: entries that stay are the same objects, in the same order. */
export function differs(before: Table, after: Table): boolean {
  return [...(after.touched ?? [])].some(([chain, wanted]) => {
    const standing = before.chains.get(chain);
    if (standing === wanted) return false;
    return standing?.length !== wanted?.length || standing?.some((entry, at) => entry !== wanted?.[at]);
  });
}

/** Whether an entry does what a rule says. Texts first: nearly always they decide, and the entry need not be parsed. */
export function does(entry: Entry, wanted: Rule, text = ruleText(wanted)): boolean {
  if (entry.cannotBe?.(wanted) === true) return false;
  if (entry.text === text) return true;
  // A rule with fewer than two matches has only one spelling.
  if ((wanted.matches?.length ?? 0) < 2) return false;
  return !isForeign(entry.rule) && sameRule(entry.rule, wanted);
}

/** The table as plans and callers of `read` see it: rules parsed when they are looked at, chain by chain. */
export function stateOf({ family, table, chains }: Table): TableState {
  const entries = (chain: string): readonly Entry[] => chains.get(chain) ?? [];
  return {
    family,
    table,
    chains: new ParsedChains(chains),
    jumps: (chain, to) =>
      entries(chain)
        .filter((entry) => entry.leadsTo(to))
        .map(({ rule }) => rule),
    holds: (chain, wanted) => {
      const text = ruleText(wanted);
      return entries(chain).some((entry) => does(entry, wanted, text));
    },
    forPorts: (chain, ports) =>
      entries(chain)
        .filter((entry) => entry.cannotBeFor?.(ports) !== true)
        .map(({ rule }) => rule),
  };
}

/** Whether two lists have a port in common. */
export function haveCommonPort(some: readonly PortRange[], others: readonly PortRange[]): boolean {
  return some.some((one) => others.some((other) => one.first <= other.last && other.first <= one.last));
}

class ParsedChains implements ReadonlyMap<string, readonly (Rule | ForeignRule)[]> {
  readonly #chains: ReadonlyMap<string, readonly Entry[]>;
  readonly #parsed = new Map<string, readonly (Rule | ForeignRule)[]>();

  constructor(chains: ReadonlyMap<string, readonly Entry[]>) {
    this.#chains = chains;
  }

  get size(): number {
    return this.#chains.size;
  }

  has(chain: string): boolean {
    return this.#chains.has(chain);
  }

  get(chain: string): readonly (Rule | ForeignRule)[] | undefined {
    const entries = this.#chains.get(chain);
    if (entries === undefined) return undefined;
    const parsed = this.#parsed.get(chain) ?? entries.map(({ rule }) => rule);
    this.#parsed.set(chain, parsed);
    return parsed;
  }

  keys(): MapIterator<string> {
    return this.#chains.keys();
  }

  *entries(): MapIterator<[string, readonly (Rule | ForeignRule)[]]> {
    for (const chain of this.#chains.keys()) yield [chain, this.get(chain) ?? []];
  }

  *values(): MapIterator<readonly (Rule | ForeignRule)[]> {
    for (const [, rules] of this.entries()) yield rules;
  }

  [Symbol.iterator](): MapIterator<[string, readonly (Rule | ForeignRule)[]]> {
    return this.entries();
  }

  forEach(
    visit: (
      rules: readonly (Rule | ForeignRule)[],
      chain: string,
      map: ReadonlyMap<string, readonly (Rule | ForeignRule)[]>,
    ) => void,
  ): void {
    for (const [chain, rules] of this.entries()) visit(rules, chain, this);
  }
}
