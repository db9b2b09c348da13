import { loadTableBlob, readTableBlob, type TableBlob } from '../../kernel/legacy-table.ts';
import type { Family, TableName } from '../ruleset.ts';
import type { Table } from '../table.ts';
import { BlobView, PART_DATA, nameAt, VERDICTS } from './layout.ts';
import { LegacyRule } from './legacy-rule.ts';

/** A table with what else of it has to be known to write it anew. */
export interface LegacyTable extends Table {
  readonly chains: ReadonlyMap<string, readonly LegacyRule[]>;
  readonly blob: TableBlob;
  /** Where each chain stands, in the order of the blob. */
  readonly sections: ReadonlyMap<string, Section>;
  /** Whether those are all that the table holds. */
  readonly isWhole: boolean;
}

/**
 * ```
 *  chain of the kernel's                   chain of somebody's
 *  rules ... | policy |                    ERROR "name" | rules ... | RETURN |
 *  ^ begin     ^ foot ^ end                ^ begin        ^ start     ^ foot ^ end
 *  ^ start
 * ```
 */
export interface Section {
  /** NF_INET_* of a chain of the kernel's. */
  readonly hook?: number;
  readonly begin: number;
  /** Where jumps lead. */
  readonly start: number;
  readonly foot: number;
  readonly end: number;
  /** What numbers the entries at `start` and at `foot` have among all. */
  readonly number: number;
  readonly footNumber: number;
}

/**
 * A table of iptables-legacy, read without starting a program. Rules of shapes that nobody here writes are foreign and
 * without words: whoever needs those must ask iptables-save. Names of chains are read byte by byte: they may be in any encoding.
 * @returns undefined when the table is not in use
 */
export function readLegacyTable(family: Family, table: TableName): LegacyTable | undefined {
  const blob = readTableBlob(family, table);
  return blob === undefined ? undefined : tableOf(family, table, blob);
}

/** Reads a table, and brings it into being where it is not in use yet. */
export function makeLegacyTable(family: Family, table: TableName): LegacyTable {
  return tableOf(family, table, loadTableBlob(family, table));
}

function tableOf(family: Family, table: TableName, blob: TableBlob): LegacyTable {
  const walk = new Walk(family, table, blob);
  const { chains, policies, sections } = walk;
  return { family, table, chains, policies, blob, sections, isWhole: walk.isWhole() };
}

/** From chain to chain, as they stand in the blob. */
class Walk {
  readonly chains = new Map<string, LegacyRule[]>();
  readonly sections = new Map<string, Section>();
  readonly policies = new Map<string, 'accept' | 'drop'>();
  readonly #blob: TableBlob;
  readonly #heads = new Map<number, string>();
  readonly #view: BlobView;
  #seen = 0;

  constructor(family: Family, table: TableName, blob: TableBlob) {
    this.#blob = blob;
    this.#view = new BlobView(family, blob.entries, this.#heads);
    const hooks = HOOKS[table].filter(({ hook }) => (blob.validHooks & (1 << hook)) !== 0);
    const hookAt = new Map(hooks.map((hook) => [blob.hookEntry[hook.hook] ?? 0, hook]));
    for (let at = 0; at < this.#last();) {
      const hook = hookAt.get(at);
      // Between chains there is nothing: whoever wrote this is not known here.
      if (hook === undefined && !this.#view.isHead(at)) return;
      at = hook === undefined ? this.#others(at) : this.#kernels(at, hook);
    }
  }

  /** All but the entry that ends the table. */
  isWhole(): boolean {
    const hooks = [...this.sections.values()].flatMap(({ hook }) => (hook === undefined ? [] : [1 << hook]));
    const { count, validHooks } = this.#blob;
    return this.#seen + 1 === count && hooks.reduce((bits, bit) => bits | bit, 0) === validHooks;
  }

  /** Where the table's last entry is, an ERROR like a chain's head. */
  #last(): number {
    return this.#blob.entries.length - this.#view.layout.matches - ERROR_TARGET_SIZE;
  }

  #kernels(begin: number, { name, hook }: { readonly name: string; readonly hook: number }): number {
    const policy = this.#blob.underflow[hook];
    if (policy !== undefined)
      this.policies.set(name, this.#view.verdict(policy) === VERDICTS.drop ? 'drop' : 'accept');
    return this.#chain(name, { hook, begin, start: begin }, (at) => at === policy);
  }

  #others(begin: number): number {
    const name = nameAt(this.#blob.entries, this.#view.target(begin) + PART_DATA, 30, 'latin1');
    // The implicit RETURN is the last entry before the next head.
    return this.#chain(name, { begin, start: this.#view.next(begin) }, (_, next) => this.#view.isHead(next));
  }

  /** @returns where the chain ends */
  #chain(
    name: string,
    where: Pick<Section, 'hook' | 'begin' | 'start'>,
    isFoot: (at: number, next: number) => boolean,
  ): number {
    const view = this.#view;
    const { begin, start } = where;
    const number = this.#seen + (begin === start ? 0 : 1);
    const rules: LegacyRule[] = [];
    let at = start;
    let end = view.next(at);
    while (end <= this.#last() && !isFoot(at, end)) {
      rules.push(new LegacyRule(view, at, end, number + rules.length));
      at = end;
      end = view.next(at);
    }
    this.#heads.set(start, name);
    this.chains.set(name, rules);
    const footNumber = number + rules.length;
    this.sections.set(name, { ...where, foot: at, end, number, footNumber });
    this.#seen = footNumber + 1;
    return end;
  }
}

/** NF_INET_* */
const HOOKS = {
  filter: [
    { name: 'INPUT', hook: 1 },
    { name: 'FORWARD', hook: 2 },
    { name: 'OUTPUT', hook: 3 },
  ],
  nat: [
    { name: 'PREROUTING', hook: 0 },
    { name: 'INPUT', hook: 1 },
    { name: 'OUTPUT', hook: 3 },
    { name: 'POSTROUTING', hook: 4 },
  ],
} as const;
/** struct xt_error_target, padded: xt_entry_target, errorname 30 */
const ERROR_TARGET_SIZE = 64;
