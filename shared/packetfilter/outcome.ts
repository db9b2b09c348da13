import type { EnsuredRule, RemovedRules, Rule, TableChange } from './ruleset.ts';
import { isForeign } from './compare.ts';
import { ruleText } from './iptables/render.ts';
import { ChangedChains } from './changed-chains.ts';
import { does, NewRule, type Entry, type Table } from './table.ts';

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
    const text = 'rule' in removed ? ruleText(removed.rule) : '';
    this.#keep(removed.chain, entries, (entry) =>
      'rule' in removed
        ? !does(entry, removed.rule, text)
        : isForeign(entry.rule) || !removed.match(entry.rule),
    );
  }

  setChain(chain: string, rules: readonly Rule[]): void {
    const entries = this.chains.get(chain);
    const same = entries?.length === rules.length && rules.every((rule, at) => holds(entries[at], rule));
    if (same) return;
    this.chains.set(chain, rules.map(newRule));
    this.rewritten.add(chain);
  }

  setJumps(chain: string, to: string, rules: readonly Rule[]): void {
    const entries = this.chains.get(chain) ?? [];
    const jumps = entries.filter((entry) => entry.leadsTo(to));
    if (jumps.length === rules.length && rules.every((rule, at) => holds(jumps[at], rule))) return;
    this.#keep(chain, entries, (entry) => !entry.leadsTo(to), rules.map(newRule));
  }

  ensureRule({ chain, rule, at, behind = [] }: EnsuredRule): void {
    const entries = this.chains.get(chain) ?? [];
    const text = ruleText(rule);
    const standing = entries.find((entry) => does(entry, rule, text));
    const others = entries.filter((entry) => !does(entry, rule, text));
    const head = at === 'first' ? leading(others, behind) : 0;
    const inPlace = standing !== undefined && (at !== 'first' || entries.indexOf(standing) <= head);
    if (inPlace) {
      // Further copies go; the first one stays where it is.
      this.#keep(chain, entries, (entry) => entry === standing || !does(entry, rule, text));
    } else {
      const place = at === 'last' ? others.length : head;
      this.chains.set(chain, others.toSpliced(place, 0, new NewRule(rule)));
    }
  }

  deleteChains(which: string | ((chain: string) => boolean)): void {
    const doomed = typeof which === 'string' ? [which] : [...this.chains.keys()].filter(which);
    const present = doomed.filter((chain) => this.chains.has(chain));
    for (const chain of this.#holders(present)) {
      const entries = this.chains.get(chain) ?? [];
      this.#keep(chain, entries, (entry) => !present.some((gone) => entry.leadsTo(gone)));
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

  /** Leaves the very same array where nothing changes: diff.ts then need not look at the chain at all. */
  #keep(
    chain: string,
    entries: readonly Entry[],
    keep: (entry: Entry) => boolean,
    added: readonly Entry[] = [],
  ): void {
    const kept = entries.filter(keep);
    if (kept.length !== entries.length || added.length > 0) this.chains.set(chain, [...kept, ...added]);
  }
}

/** How many entries at the head of a chain jump to one of these chains. */
function leading(entries: readonly Entry[], chains: readonly string[]): number {
  const other = entries.findIndex((entry) => !chains.some((chain) => entry.leadsTo(chain)));
  return other < 0 ? entries.length : other;
}

function holds(entry: Entry | undefined, rule: Rule): boolean {
  return entry !== undefined && does(entry, rule);
}

function newRule(rule: Rule): Entry {
  return new NewRule(rule);
}
