import type { PortRange, Rule } from './ruleset.ts';
import type { Entry, Rules } from './rules.ts';

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

  mayLeadTo(chain: string): Iterable<Entry> {
    return this.#edited(this.base.mayLeadTo?.(chain) ?? this.base);
  }

  mayBeFor(ports: readonly PortRange[]): Iterable<Entry> {
    return this.#edited(this.base.mayBeFor?.(ports) ?? this.base);
  }

  *#edited(some: Iterable<Entry>): Generator<Entry> {
    for (const entry of some) if (!this.gone.has(entry)) yield entry;
    yield* this.added;
  }
}
