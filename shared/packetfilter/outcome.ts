import type { EnsuredRule, PlannedChange, RemovedRules, Rule, TableChange } from './ruleset.ts';
import { isForeign } from './compare.ts';
import { ChangedChains } from './changed-chains.ts';
import { EditedRules } from './edited-rules.ts';
import { does, doing, leadingTo, NewRule, type Entry, type Rules } from './rules.ts';
import { stateOf, type Table } from './table.ts';

/**
 * The table as it stands after a change. Pure. What the change leaves alone is the same objects in the same order; a change that
 * is fulfilled already gives a table of the same entries.
 *
 * Order of treatment: removals, whole chains, jumps, single rules, and deleted chains last, so that a change may take
 * a chain's rules elsewhere before deleting it.
 */
export function outcomeOf(before: Table, change: Omit<TableChange, 'family' | 'table'>): Table {
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
export function outcomeOfAll(before: Table, changes: readonly (TableChange | PlannedChange)[]): Table {
  return changes.reduce<Table>(
    (table, change) => outcomeOf(table, 'plan' in change ? change.plan(stateOf(table)) : change),
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
        : [...entries].filter(({ rule }) => !isForeign(rule) && removed.match(rule));
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
    const jumps = [...leadingTo(entries, to)];
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
        present.flatMap((gone) => [...leadingTo(entries, gone)]),
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
  return chains.some((chain) => entry.leadsTo(chain));
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
