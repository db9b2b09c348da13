import { namedChains, tableAfter } from './changed-table.ts';
import { isUnmanaged, sameRule } from './compare.ts';
import { ruleText } from './iptables/render.ts';
import type {
  Family,
  InsertedRules,
  Rule,
  TableChange,
  TableName,
  TableState,
  UnmanagedRule,
} from './ruleset.ts';
import type { Entry, Rules, Table } from './table.ts';

type Change = Omit<TableChange, 'family' | 'table'>;

/** The rules of this suite in one table, as the changes of all ADDs make them on a host with rules of other programs. */
export interface DesiredTable {
  readonly family: Family;
  readonly table: TableName;
  /** In the order of their creation. */
  readonly chains: ReadonlyMap<string, DesiredChain>;
}

/** Rules that ADD puts at the head of a chain, before those of other programs, and rules that it appends. Both in their order. */
export interface DesiredChain {
  readonly head: readonly Rule[];
  readonly tail: readonly Rule[];
}

/** What a table lacks. */
export interface MissingRules {
  readonly chains: readonly string[];
  readonly inserted: readonly InsertedRules[];
}

/** @param changes in the order of the ADDs; without plans and removals */
export function desiredTable(family: Family, table: TableName, changes: readonly Change[]): DesiredTable {
  const names = new Set(changes.flatMap(namedChains));
  const empty: Table = { family, table, chains: new Map([...names].map((name) => [name, OTHER_PROGRAMS])) };
  // As one change: each kind of rule has chains of its own, or a place of its own in a chain.
  const together = tableAfter(empty, {
    setChains: changes.flatMap(({ setChains = [] }) => setChains),
    setJumps: changes.flatMap(({ setJumps = [] }) => setJumps),
    ensureRules: changes.flatMap(({ ensureRules = [] }) => ensureRules),
  });
  const chains = [...names].map((name) => [name, split([...(together.chains.get(name) ?? [])])] as const);
  return { family, table, chains: new Map(chains) };
}

/**
 * Where the rules that a table lacks belong: beside the rules of this suite that are their neighbours, else where ADD puts them. No rule is
 * removed or moved.
 */
export function missingRules(state: TableState, { chains }: DesiredTable): MissingRules {
  const created: string[] = [];
  const inserted: InsertedRules[] = [];
  for (const [chain, { head, tail }] of chains) {
    const present = state.chains.get(chain);
    if (present === undefined) created.push(chain);
    const find = finder(present ?? []);
    const places = [...placesOf(head, find, 0), ...placesOf(tail, find, present?.length ?? 0)];
    const byPlace = [...Map.groupBy(places, ({ before }) => before)].sort(([one], [other]) => one - other);
    for (const [before, rules] of byPlace)
      inserted.push({ chain, before, rules: rules.map(({ rule }) => rule) });
  }
  return { chains: created, inserted };
}

/** One sentence for each chain and rule. */
export function describeMissing(
  { family, table }: Pick<DesiredTable, 'family' | 'table'>,
  { chains, inserted }: MissingRules,
): string[] {
  const where = `table ${table} (${family})`;
  return [
    ...chains.map((chain) => `chain ${chain} is missing from ${where}`),
    ...inserted.flatMap(({ chain, rules }) =>
      rules.map((rule) => `rule is missing from chain ${chain} of ${where}: ${ruleText(rule)}`),
    ),
  ];
}

/** Stands for the rules of other programs that a chain may have. */
const OTHERS: Entry = { text: '', rule: { unmanaged: '' }, jumpsTo: () => false };
const OTHER_PROGRAMS: Rules = [OTHERS];

function split(entries: readonly Entry[]): DesiredChain {
  const at = entries.indexOf(OTHERS);
  const rulesOf = (some: readonly Entry[]): Rule[] =>
    some.flatMap(({ rule }) => (isUnmanaged(rule) ? [] : [rule]));
  return { head: rulesOf(entries.slice(0, Math.max(at, 0))), tail: rulesOf(entries.slice(at + 1)) };
}

type Find = (rule: Rule) => number;

interface Place {
  readonly before: number;
  readonly rule: Rule;
}

/** @param none the place where no neighbour is present */
function placesOf(rules: readonly Rule[], find: Find, none: number): Place[] {
  const found = rules.map(find);
  if (!found.includes(-1)) return [];
  let previous = -1;
  return rules.flatMap((rule, at) => {
    const own = found[at] ?? -1;
    if (own >= 0) {
      previous = own;
      return [];
    }
    if (previous >= 0) return [{ rule, before: previous + 1 }];
    const next = found.slice(at + 1).find((one) => one >= 0);
    return [{ rule, before: next ?? none }];
  });
}

/** Finds the number of a rule in its chain; -1 if it is missing. */
function finder(present: readonly (Rule | UnmanagedRule)[]): Find {
  const texts = new Map<string, number>();
  present.forEach((rule, at) => {
    if (isUnmanaged(rule)) return;
    const text = ruleText(rule);
    if (!texts.has(text)) texts.set(text, at);
  });
  return (wanted) => {
    const at = texts.get(ruleText(wanted));
    if (at !== undefined) return at;
    // A rule with fewer than two matches has only one spelling; iptables may print raw arguments in another one.
    if ((wanted.matches?.length ?? 0) < 2) return -1;
    return present.findIndex((rule) => !isUnmanaged(rule) && isSpelling(rule, wanted));
  };
}

function isSpelling(rule: Rule, wanted: Rule): boolean {
  if (rule.matches?.length !== wanted.matches?.length) return false;
  return (
    sameRule(rule, wanted) || (hasRawArgs(wanted) && hasRawArgs(rule) && sameRule(bare(rule), bare(wanted)))
  );
}

function hasRawArgs({ matches = [] }: Rule): boolean {
  return matches.some(({ kind }) => kind === 'rawArgs');
}

function bare(rule: Rule): Rule {
  return { ...rule, matches: rule.matches?.filter(({ kind }) => kind !== 'rawArgs') ?? [] };
}
