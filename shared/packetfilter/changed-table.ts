import { isUnmanaged } from './compare.ts';
import type { PortRanges } from './port-ranges.ts';
import type {
  EnsuredRule,
  InsertedRules,
  PlannedChange,
  RemovedRules,
  Rule,
  TableChange,
} from './ruleset.ts';
import {
  type Entry,
  LazyMap,
  NewRule,
  type Rules,
  type Table,
  does,
  doing,
  jumpingTo,
  stateOf,
} from './table.ts';

/**
 * The table after a change. Pure. Entries that stay are the same objects in the same order, so a change that is already fulfilled gives the same
 * entries.
 *
 * Order: removed rules, complete chains, jumps, single rules, and deleted chains last, so that a change may move rules out of a chain that it
 * deletes.
 */
export function tableAfter(before: Table, change: Omit<TableChange, 'family' | 'table'>): Table {
  const after = new Draft(before);
  for (const removed of change.removeRules ?? []) after.remove(removed);
  for (const chain of change.ensureChains ?? []) after.ensureChain(chain);
  for (const { chain, rules } of change.setChains ?? []) after.setChain(chain, rules);
  for (const { chain, to, rules } of change.setJumps ?? []) after.setJumps(chain, to, rules);
  for (const ensured of change.ensureRules ?? []) after.ensureRule(ensured);
  for (const [chain, inserted] of Map.groupBy(change.insertRules ?? [], (one) => one.chain))
    after.insertRules(chain, inserted);
  for (const chain of change.deleteChains ?? []) after.deleteChains(chain);
  const { chains, rewritten } = after;
  return { ...before, chains, touched: chains.touched, rewritten };
}

/** The table after several changes, one after the other; a plan sees the result of the changes before it. */
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
      // The first copy stays where it is.
      this.#edit(chain, entries, further);
    } else if (at === 'last') {
      this.#edit(chain, entries, [], [new NewRule(rule)]);
    } else {
      const others = [...entries].filter((entry) => !copies.includes(entry));
      const place = at === 'first' ? leading(others, behind) : 0;
      this.chains.set(chain, others.toSpliced(place, 0, new NewRule(rule)));
    }
  }

  insertRules(chain: string, inserted: readonly InsertedRules[]): void {
    const entries = [...(this.chains.get(chain) ?? [])];
    const isAtEnd = inserted.every(({ before }) => before >= entries.length);
    if (isAtEnd && this.chains.has(chain)) {
      this.#edit(
        chain,
        this.chains.get(chain) ?? [],
        [],
        inserted.flatMap(({ rules }) => rules.map(newRule)),
      );
      return;
    }
    const result: Entry[] = [];
    let next = 0;
    for (const { before, rules } of inserted) {
      for (; next < Math.min(before, entries.length); next++) result.push(entries[next] as Entry);
      for (const rule of rules) result.push(newRule(rule));
    }
    this.chains.set(chain, [...result, ...entries.slice(next)]);
  }

  deleteChains(which: string | ((chain: string) => boolean)): void {
    const named = typeof which === 'string' ? [which] : [...this.chains.keys()].filter(which);
    const present = named.filter((chain) => this.chains.has(chain));
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

  /** Chains that may jump to one of these: those that did when the table was read, and those changed since. */
  #holders(gone: readonly string[]): ReadonlySet<string> {
    if (gone.length === 0) return new Set();
    const { holders } = this.#before;
    const read = holders === undefined ? this.chains.keys() : gone.flatMap((chain) => holders(chain));
    const names = new Set([...read, ...this.chains.touched.keys()]);
    return new Set([...names].filter((chain) => this.chains.has(chain) && !gone.includes(chain)));
  }

  /** Keeps the same list if nothing changes, so that diff.ts need not read the chain. */
  #edit(chain: string, entries: Rules, gone: Iterable<Entry>, added: readonly Entry[] = []): void {
    const removed = [...gone];
    if (removed.length > 0 || added.length > 0)
      this.chains.set(chain, EditedRules.of(entries, removed, added));
  }
}

/** The number of entries at the head of a chain that jump to one of these chains. */
function leading(entries: readonly Entry[], chains: readonly string[]): number {
  const other = entries.findIndex((entry) => !jumpsToOne(entry, chains));
  return other < 0 ? entries.length : other;
}

/** Whether all entries before this one jump to one of these chains. */
function isAtHead(standing: Entry, entries: Rules, chains: readonly string[]): boolean {
  for (const entry of entries) {
    if (entry === standing) return true;
    if (!jumpsToOne(entry, chains)) return false;
  }
  return false;
}

function jumpsToOne(entry: Entry, chains: readonly string[]): boolean {
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

/** The chains that a change names, so that they can be requested together. */
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
    ...(change.insertRules ?? []).map(({ chain }) => chain),
    ...(change.deleteChains ?? []).filter((which) => typeof which === 'string'),
  ];
}

/**
 * A table's chains with changes on top. The chains below are read only when needed: there may be ten thousand.
 */
class ChangedChains extends LazyMap<Rules> {
  /** Changed chains; undefined: deleted. */
  readonly touched: Map<string, Rules | undefined>;
  readonly #base: ReadonlyMap<string, Rules>;

  static over(chains: ReadonlyMap<string, Rules>): ChangedChains {
    return chains instanceof ChangedChains
      ? new ChangedChains(chains.#base, new Map(chains.touched))
      : new ChangedChains(chains, new Map());
  }

  /** Use {@link ChangedChains.over}. */
  private constructor(base: ReadonlyMap<string, Rules>, touched: Map<string, Rules | undefined>) {
    super();
    this.#base = base;
    this.touched = touched;
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
}

/** A chain's rules without some of them and with others appended, without copying them: the usual change. */
export class EditedRules implements Rules {
  /** The original list; never itself an edited one. */
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

  mayBeFor(ports: PortRanges): Iterable<Entry> {
    return this.#edited(this.base.mayBeFor?.(ports) ?? this.base);
  }

  *#edited(some: Iterable<Entry>): Generator<Entry> {
    for (const entry of some) if (!this.gone.has(entry)) yield entry;
    yield* this.added;
  }
}
