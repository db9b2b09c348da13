import { isUnmanaged } from './compare.ts';
import type { EnsuredRule, PlannedChange, PortRange, RemovedRules, Rule, TableChange } from './ruleset.ts';
import { type Entry, NewRule, type Rules, type Table, does, doing, jumpingTo, stateOf } from './table.ts';

/**
 * The table as it stands after a change. Pure. What the change leaves alone is the same objects in the same order; a change that
 * is fulfilled already gives a table of the same entries.
 *
 * Order of treatment: removals, whole chains, jumps, single rules, and deleted chains last, so that a change may take
 * a chain's rules elsewhere before deleting it.
 */
export function tableAfter(before: Table, change: Omit<TableChange, 'family' | 'table'>): Table {
  const after = new Draft(before);
  for (const removed of change.removeRules ?? []) after.remove(removed);
  for (const chain of change.ensureChains ?? []) after.ensureChain(chain);
  for (const { chain, rules } of change.setChains ?? []) after.setChain(chain, rules);
  for (const { chain, to, rules } of change.setJumps ?? []) after.setJumps(chain, to, rules);
  for (const ensured of change.ensureRules ?? []) after.ensureRule(ensured);
  for (const chain of change.deleteChains ?? []) after.deleteChains(chain);
  const { chains, rewritten } = after;
  return { ...before, chains, touched: chains.touched, rewritten };
}

/** The same for several changes of one table, one after the other; a planned one sees what those before it leave. */
export function tableAfterAll(before: Table, changes: readonly (TableChange | PlannedChange)[]): Table {
  return changes.reduce<Table>(
    (table, change) => tableAfter(table, 'plan' in change ? change.plan(stateOf(table)) : change),
    before,
  );
}

class Draft {
  readonly chains: ChangedChains;
  readonly rewritten: Set<string>;
  readonly #before: Table;

  constructor(before: Table) {
    this.chains = ChangedChains.over(before.chains);
    this.rewritten = new Set(before.rewritten);
    this.#before = before;
  }

  ensureChain(chain: string): void {
    if (!this.chains.has(chain)) this.chains.set(chain, []);
  }

  remove(removed: RemovedRules): void {
    const entries = this.chains.get(removed.chain);
    if (entries === undefined) return;
    const gone =
      'rule' in removed
        ? doing(entries, removed.rule)
        : [...entries].filter(({ rule }) => !isUnmanaged(rule) && removed.match(rule));
    this.#edit(removed.chain, entries, gone);
  }

  setChain(chain: string, rules: readonly Rule[]): void {
    const entries = this.chains.get(chain);
    if (entries !== undefined && areInOrder([...entries], rules)) return;
    this.chains.set(chain, rules.map(newRule));
    this.rewritten.add(chain);
  }

  setJumps(chain: string, to: string, rules: readonly Rule[]): void {
    const entries = this.chains.get(chain) ?? [];
    const jumps = [...jumpingTo(entries, to)];
    if (!areInOrder(jumps, rules)) this.#edit(chain, entries, jumps, rules.map(newRule));
  }

  ensureRule({ chain, rule, at, behind = [] }: EnsuredRule): void {
    const entries = this.chains.get(chain) ?? [];
    const copies = [...doing(entries, rule)];
    const [standing, ...further] = copies;
    if (standing !== undefined && (at !== 'first' || isAtHead(standing, entries, behind))) {
      // Further copies go; the first one stays where it is.
      this.#edit(chain, entries, further);
    } else if (at === 'last') {
      this.#edit(chain, entries, [], [new NewRule(rule)]);
    } else {
      const others = [...entries].filter((entry) => !copies.includes(entry));
      const place = at === 'first' ? leading(others, behind) : 0;
      this.chains.set(chain, others.toSpliced(place, 0, new NewRule(rule)));
    }
  }

  deleteChains(which: string | ((chain: string) => boolean)): void {
    const doomed = typeof which === 'string' ? [which] : [...this.chains.keys()].filter(which);
    const present = doomed.filter((chain) => this.chains.has(chain));
    for (const chain of this.#holders(present)) {
      const entries = this.chains.get(chain) ?? [];
      this.#edit(
        chain,
        entries,
        present.flatMap((gone) => [...jumpingTo(entries, gone)]),
      );
    }
    for (const chain of present) this.chains.delete(chain);
  }

  /** Chains that may hold rules leading to one of these: those that did when the table was read, and those changed since. */
  #holders(gone: readonly string[]): ReadonlySet<string> {
    if (gone.length === 0) return new Set();
    const { holders } = this.#before;
    const read = holders === undefined ? this.chains.keys() : gone.flatMap((chain) => holders(chain));
    const names = new Set([...read, ...this.chains.touched.keys()]);
    return new Set([...names].filter((chain) => this.chains.has(chain) && !gone.includes(chain)));
  }

  /** Leaves the very same list where nothing changes: diff.ts then need not look at the chain at all. */
  #edit(chain: string, entries: Rules, gone: Iterable<Entry>, added: readonly Entry[] = []): void {
    const removed = [...gone];
    if (removed.length > 0 || added.length > 0)
      this.chains.set(chain, EditedRules.of(entries, removed, added));
  }
}

/** How many entries at the head of a chain jump to one of these chains. */
function leading(entries: readonly Entry[], chains: readonly string[]): number {
  const other = entries.findIndex((entry) => !leadsToOne(entry, chains));
  return other < 0 ? entries.length : other;
}

/** Whether nothing stands before an entry but rules that lead to these chains. */
function isAtHead(standing: Entry, entries: Rules, chains: readonly string[]): boolean {
  for (const entry of entries) {
    if (entry === standing) return true;
    if (!leadsToOne(entry, chains)) return false;
  }
  return false;
}

function leadsToOne(entry: Entry, chains: readonly string[]): boolean {
  return chains.some((chain) => entry.jumpsTo(chain));
}

function areInOrder(entries: readonly Entry[], rules: readonly Rule[]): boolean {
  return entries.length === rules.length && rules.every((rule, at) => holds(entries[at], rule));
}

function holds(entry: Entry | undefined, rule: Rule): boolean {
  return entry !== undefined && does(entry, rule);
}

function newRule(rule: Rule): Entry {
  return new NewRule(rule);
}

/** The chains that a change is known to look at, so that all of them can be asked for at once. */
export function namedChains(
  change: PlannedChange | Omit<TableChange, 'family' | 'table'>,
): readonly string[] {
  if ('plan' in change) return change.reads ?? [];
  return [
    ...(change.removeRules ?? []).map(({ chain }) => chain),
    ...(change.ensureChains ?? []),
    ...(change.setChains ?? []).map(({ chain }) => chain),
    ...(change.setJumps ?? []).map(({ chain }) => chain),
    ...(change.ensureRules ?? []).map(({ chain }) => chain),
    ...(change.deleteChains ?? []).filter((which) => typeof which === 'string'),
  ];
}

type Chains = ReadonlyMap<string, Rules>;

/**
 * A table's chains with changes laid over them. What is underneath is looked at only where somebody asks: it may be a table
 * of ten thousand chains that is read from the kernel piece by piece.
 */
export class ChangedChains implements Chains {
  /** What lies above; undefined: deleted. */
  readonly touched: Map<string, Rules | undefined>;
  readonly #base: Chains;

  static over(chains: Chains): ChangedChains {
    return chains instanceof ChangedChains
      ? new ChangedChains(chains.#base, new Map(chains.touched))
      : new ChangedChains(chains, new Map());
  }

  /** Use {@link ChangedChains.over}. */
  private constructor(base: Chains, touched: Map<string, Rules | undefined>) {
    this.#base = base;
    this.touched = touched;
  }

  get size(): number {
    return [...this.keys()].length;
  }

  has(chain: string): boolean {
    return this.touched.has(chain) ? this.touched.get(chain) !== undefined : this.#base.has(chain);
  }

  get(chain: string): Rules | undefined {
    return this.touched.has(chain) ? this.touched.get(chain) : this.#base.get(chain);
  }

  set(chain: string, rules: Rules): void {
    this.touched.set(chain, rules);
  }

  delete(chain: string): void {
    this.touched.set(chain, undefined);
  }

  *keys(): MapIterator<string> {
    for (const chain of this.#base.keys()) if (this.has(chain)) yield chain;
    for (const [chain, entries] of this.touched)
      if (entries !== undefined && !this.#base.has(chain)) yield chain;
  }

  *entries(): MapIterator<[string, Rules]> {
    for (const chain of this.keys()) yield [chain, this.get(chain) ?? []];
  }

  *values(): MapIterator<Rules> {
    for (const [, entries] of this.entries()) yield entries;
  }

  [Symbol.iterator](): MapIterator<[string, Rules]> {
    return this.entries();
  }

  forEach(visit: (rules: Rules, chain: string, map: Chains) => void): void {
    for (const [chain, entries] of this.entries()) visit(entries, chain, this);
  }
}

/** A chain's rules without some of them, and with others behind: what nearly every change makes of a chain, without a copy of it. */
export class EditedRules implements Rules {
  /** What was edited; never itself an edited list. */
  readonly base: Rules;
  /** Rules of the base that are not in this list. */
  readonly gone: ReadonlySet<Entry>;
  readonly added: readonly Entry[];

  static of(rules: Rules, gone: Iterable<Entry>, added: readonly Entry[]): EditedRules {
    const without = new Set(gone);
    if (!(rules instanceof EditedRules)) return new EditedRules(rules, without, added);
    const kept = rules.added.filter((entry) => !without.delete(entry));
    return new EditedRules(rules.base, new Set([...rules.gone, ...without]), [...kept, ...added]);
  }

  /** Use {@link EditedRules.of}. */
  private constructor(base: Rules, gone: ReadonlySet<Entry>, added: readonly Entry[]) {
    this.base = base;
    this.gone = gone;
    this.added = added;
  }

  [Symbol.iterator](): Iterator<Entry> {
    return this.#edited(this.base);
  }

  mayDo(wanted: Rule): Iterable<Entry> {
    return this.#edited(this.base.mayDo?.(wanted) ?? this.base);
  }

  mayJumpTo(chain: string): Iterable<Entry> {
    return this.#edited(this.base.mayJumpTo?.(chain) ?? this.base);
  }

  mayBeFor(ports: readonly PortRange[]): Iterable<Entry> {
    return this.#edited(this.base.mayBeFor?.(ports) ?? this.base);
  }

  *#edited(some: Iterable<Entry>): Generator<Entry> {
    for (const entry of some) if (!this.gone.has(entry)) yield entry;
    yield* this.added;
  }
}
