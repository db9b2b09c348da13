import { namedChains, tableAfter } from './changed-table.ts';
import { isUnmanaged, sameRule } from './compare.ts';
import { ruleText } from './iptables/render.ts';
import type {
  EnsuredRule,
  Family,
  InsertedRules,
  Rule,
  TableChange,
  TableName,
  TableState,
  UnmanagedRule,
} from './ruleset.ts';
import type { Table } from './table.ts';

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

/** Takes time in proportion to the number of rules. @param changes in the order of the ADDs; without plans and removals */
export function desiredTable(family: Family, table: TableName, changes: readonly Change[]): DesiredTable {
  const names = new Set(changes.flatMap(namedChains));
  const ensured = changes.flatMap(({ ensureRules = [] }) => ensureRules);
  const heads = headsOf(
    family,
    table,
    ensured.filter(({ at }) => at !== 'last'),
  );
  const tails = new Map<string, Map<string, readonly Rule[]>>();
  const append = (chain: string, key: string, rules: readonly Rule[]): void => {
    const tail = tails.get(chain) ?? new Map<string, readonly Rule[]>();
    tails.set(chain, tail.set(key, rules));
  };
  // A later change of the same chain, or of the jumps to the same one, replaces the earlier one.
  for (const { setChains = [] } of changes)
    for (const { chain, rules } of setChains) append(chain, '', rules);
  for (const { setJumps = [] } of changes)
    for (const { chain, to, rules } of setJumps) append(chain, `-> ${to}`, rules);
  for (const { chain, rule, at } of ensured) if (at === 'last') append(chain, ruleText(rule), [rule]);
  const chains = [...names].map((name) => {
    const tail = [...(tails.get(name)?.values() ?? [])].flat();
    return [name, { head: heads.get(name) ?? [], tail }] as const;
  });
  return { family, table, chains: new Map(chains) };
}

/** Rules that every container's ADD puts at the head of a chain: few, however many containers there are. */
function headsOf(
  family: Family,
  table: TableName,
  ensured: readonly EnsuredRule[],
): ReadonlyMap<string, readonly Rule[]> {
  const distinct = new Map(ensured.map((one) => [`${one.chain} ${ruleText(one.rule)}`, one]));
  const empty: Table = { family, table, chains: new Map() };
  const { chains } = tableAfter(empty, { ensureRules: [...distinct.values()] });
  return new Map(
    [...chains].map(([name, rules]) => [
      name,
      [...rules].flatMap(({ rule }) => (isUnmanaged(rule) ? [] : [rule])),
    ]),
  );
}

/**
 * Where the rules that a table lacks belong: beside the rules of this suite that are their neighbours, else where ADD puts them. No rule is
 * removed or moved.
 */
export function missingRules(state: TableState, { chains }: DesiredTable): MissingRules {
  const created: string[] = [];
  const inserted: InsertedRules[] = [];
  for (const [chain, { head, tail }] of chains) {
    if (!state.chains.has(chain)) created.push(chain);
    else if (state.holdInOrder(chain, head) && state.holdInOrder(chain, tail)) continue;
    const present = state.chains.get(chain);
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

type Find = (rule: Rule) => number;

interface Place {
  readonly before: number;
  readonly rule: Rule;
}

/** @param none the place where no neighbour is present */
function placesOf(rules: readonly Rule[], find: Find, none: number): Place[] {
  const found = rules.map(find);
  if (!found.includes(-1)) return [];
  const first = found.find((one) => one >= 0) ?? none;
  let previous = -1;
  return rules.flatMap((rule, at) => {
    const own = found[at] ?? -1;
    if (own < 0) return [{ rule, before: previous >= 0 ? previous + 1 : first }];
    previous = own;
    return [];
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
