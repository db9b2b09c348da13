import type { Family, ForeignRule, Rule, TableName, TableState } from './ruleset.ts';
import { doing, leadingTo, maybeFor, type Rules } from './rules.ts';

/**
 * A table on its way from what stands in the kernel to what shall stand there. Entries that survive stay the same objects in
 * the same order, so that the difference (diff.ts) is a matter of identity and foreign rules are never moved or rewritten.
 */
export interface Table {
  readonly family: Family;
  readonly table: TableName;
  readonly chains: ReadonlyMap<string, Rules>;
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
export function stateOf({ family, table, chains }: Table): TableState {
  const rules = (chain: string): Rules => chains.get(chain) ?? [];
  return {
    family,
    table,
    chains: new ParsedChains(chains),
    jumps: (chain, to) => Array.from(leadingTo(rules(chain), to), ({ rule }) => rule),
    holds: (chain, wanted) => doing(rules(chain), wanted).next().done !== true,
    forPorts: (chain, ports) => Array.from(maybeFor(rules(chain), ports), ({ rule }) => rule),
  };
}

class ParsedChains implements ReadonlyMap<string, readonly (Rule | ForeignRule)[]> {
  readonly #chains: ReadonlyMap<string, Rules>;
  readonly #parsed = new Map<string, readonly (Rule | ForeignRule)[]>();

  constructor(chains: ReadonlyMap<string, Rules>) {
    this.#chains = chains;
  }

  get size(): number {
    return this.#chains.size;
  }

  has(chain: string): boolean {
    return this.#chains.has(chain);
  }

  get(chain: string): readonly (Rule | ForeignRule)[] | undefined {
    const rules = this.#chains.get(chain);
    if (rules === undefined) return undefined;
    const parsed = this.#parsed.get(chain) ?? Array.from(rules, ({ rule }) => rule);
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
