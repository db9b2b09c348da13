import { isUnmanaged, sameRule } from './compare.ts';
import { ruleText } from './iptables/render.ts';
import type { PortRanges } from './port-ranges.ts';
import type { Family, UnmanagedRule, Rule, TableName, TableState } from './ruleset.ts';

/** A rule in its chain. Drivers subclass it to remember how the kernel knows the rule. */
export interface Entry {
  /** As iptables-save prints it. */
  readonly text: string;
  readonly rule: Rule | UnmanagedRule;
  /** Whether the rule jumps or goes to this chain; also for unmanaged rules. */
  jumpsTo(chain: string): boolean;
  /** True only if the rule is certainly this one, as an earlier {@link keepAs} of it found; spares decoding it. */
  isKnownAs?(wanted: Rule): boolean;
  /** The rule equals this one. */
  keepAs?(wanted: Rule): void;
  /** True only if the rule is certainly another one; spares decoding it. */
  cannotBe?(wanted: Rule): boolean;
  /** True only if the rule's multiport match certainly excludes these ports. */
  cannotBeFor?(ports: PortRanges): boolean;
  /** The kernel's number of the rule, by which it is deleted; without one, the text is used. */
  readonly handle?: bigint;
}

/**
 * The rules of a chain in their order: an array, or a list that can search without decoding each rule, because a chain may have ten thousand. The
 * optional searches yield every rule that may match, and few others, in the chain's order and on demand.
 */
export interface Rules extends Iterable<Entry> {
  /** Rules that may equal this one. */
  mayDo?(wanted: Rule): Iterable<Entry>;
  /** Rules that may jump or go to the chain. */
  mayJumpTo?(chain: string): Iterable<Entry>;
  /** All but those that {@link Entry.cannotBeFor} excludes. */
  mayBeFor?(ports: PortRanges): Iterable<Entry>;
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

/** The rules that equal a rule. */
export function* doing(rules: Rules, wanted: Rule): Generator<Entry> {
  const text = ruleText(wanted);
  for (const entry of rules.mayDo?.(wanted) ?? rules) if (does(entry, wanted, text)) yield entry;
}

/** The rules that jump or go to a chain. */
export function* jumpingTo(rules: Rules, chain: string): Generator<Entry> {
  for (const entry of rules.mayJumpTo?.(chain) ?? rules) if (entry.jumpsTo(chain)) yield entry;
}

/** The rules except those that certainly have other destination ports. */
export function* maybeFor(rules: Rules, ports: PortRanges): Generator<Entry> {
  for (const entry of rules.mayBeFor?.(ports) ?? rules) if (entry.cannotBeFor?.(ports) !== true) yield entry;
}

/** Whether an entry equals a rule. The texts nearly always decide, so that the entry need not be parsed. */
export function does(entry: Entry, wanted: Rule, text = ruleText(wanted)): boolean {
  if (entry.isKnownAs?.(wanted) === true) return true;
  const isEqual = hasText(entry, wanted, text);
  if (isEqual) entry.keepAs?.(wanted);
  return isEqual;
}

function hasText(entry: Entry, wanted: Rule, text: string): boolean {
  if (entry.cannotBe?.(wanted) === true) return false;
  if (entry.text === text) return true;
  // A rule with fewer than two matches has only one spelling.
  if ((wanted.matches?.length ?? 0) < 2) return false;
  return !isUnmanaged(entry.rule) && sameRule(entry.rule, wanted);
}

/**
 * A table as read, or as changed. Entries that stay are the same objects in the same order, so diff.ts compares identities, and unmanaged rules
 * are never moved or rewritten.
 */
export interface Table {
  readonly family: Family;
  readonly table: TableName;
  readonly chains: ReadonlyMap<string, Rules>;
  /** Of the built-in chains; not read over netlink. */
  readonly policies?: ReadonlyMap<string, 'accept' | 'drop'>;
  /** Chains that a change replaces completely: they may be flushed; of others, single rules are deleted. */
  readonly rewritten?: ReadonlySet<string>;
  /** Chains that differ from the table as read; undefined: deleted. */
  readonly touched?: ReadonlyMap<string, Rules | undefined>;
  /** Names of the chains with jumps to a chain, if there is a cheaper way than reading all. */
  readonly holders?: (chain: string) => readonly string[];
}

/** Whether a changed table needs a commit. */
export function differs(before: Table, after: Table): boolean {
  return [...(after.touched ?? [])].some(([chain, wanted]) => {
    const standing = before.chains.get(chain);
    if (standing === wanted) return false;
    if (standing === undefined || wanted === undefined) return true;
    const [some, others] = [[...standing], [...wanted]];
    return some.length !== others.length || some.some((entry, at) => entry !== others[at]);
  });
}

/** The table for plans and callers of `read`: chains are parsed on first use. */
export function stateOf({ family, table, chains, policies = new Map() }: Table): TableState {
  const rules = (chain: string): Rules => chains.get(chain) ?? [];
  return {
    family,
    table,
    policies,
    chains: new ParsedChains(chains),
    jumps: (chain, to) => Array.from(jumpingTo(rules(chain), to), ({ rule }) => rule),
    holdInOrder: (chain, wanted) => areInOrder(rules(chain), wanted),
    holds: (chain, wanted) => doing(rules(chain), wanted).next().done !== true,
    forPorts: (chain, ports) => Array.from(maybeFor(rules(chain), ports), ({ rule }) => rule),
  };
}

/** Other rules may be between them. */
function areInOrder(rules: Rules, wanted: readonly Rule[]): boolean {
  let found = 0;
  for (const entry of rules) {
    const next = wanted[found];
    if (next === undefined) break;
    if (does(entry, next)) found += 1;
  }
  return found === wanted.length;
}

/** A map whose values are looked up one by one, because there may be ten thousand. */
export abstract class LazyMap<Value> implements ReadonlyMap<string, Value> {
  abstract keys(): MapIterator<string>;
  abstract has(key: string): boolean;
  abstract get(key: string): Value | undefined;

  get size(): number {
    return [...this.keys()].length;
  }

  *entries(): MapIterator<[string, Value]> {
    for (const key of this.keys()) yield [key, this.get(key) as Value];
  }

  *values(): MapIterator<Value> {
    for (const [, value] of this.entries()) yield value;
  }

  [Symbol.iterator](): MapIterator<[string, Value]> {
    return this.entries();
  }

  forEach(visit: (value: Value, key: string, map: ReadonlyMap<string, Value>) => void): void {
    for (const [key, value] of this.entries()) visit(value, key, this);
  }
}

class ParsedChains extends LazyMap<readonly (Rule | UnmanagedRule)[]> {
  readonly #chains: ReadonlyMap<string, Rules>;
  readonly #parsed = new Map<string, readonly (Rule | UnmanagedRule)[]>();

  constructor(chains: ReadonlyMap<string, Rules>) {
    super();
    this.#chains = chains;
  }

  keys(): MapIterator<string> {
    return this.#chains.keys();
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
}
