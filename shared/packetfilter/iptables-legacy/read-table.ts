import { makeXtables, readXtables, type XtablesBlob } from '../../kernel/xtables.ts';
import type { Family, TableName } from '../ruleset.ts';
import type { Entry, Table } from '../table.ts';
import { LegacyRule, type Place } from './legacy-rule.ts';
import { LAYOUTS, nameAt, PART_DATA, type Layout } from './layout.ts';

/** A table with what else of it has to be known to write it anew. */
export interface LegacyTable extends Table {
  readonly blob: XtablesBlob;
  /** Of the kernel's own chains, in their order. */
  readonly policies: ReadonlyMap<string, Policy>;
  /** Whether chains and policies are all that the table holds. */
  readonly isWhole: boolean;
}

/** The last entry of a chain of the kernel's. */
export interface Policy {
  /** NF_INET_* */
  readonly hook: number;
  readonly bytes: Buffer;
  /** As in {@link LegacyRule} */
  readonly number: number;
}

/**
 * A table of iptables-legacy, read without starting a program. Rules of shapes that nobody here writes are foreign and
 * without words: whoever needs those must ask iptables-save.
 * @returns undefined when the table is not in use
 */
export function readLegacyTable(family: Family, table: TableName): LegacyTable | undefined {
  const blob = readXtables(family, table);
  return blob === undefined ? undefined : tableOf(family, table, blob);
}

/** Reads a table, and brings it into being where it is not in use yet. */
export function makeLegacyTable(family: Family, table: TableName): LegacyTable {
  return tableOf(family, table, makeXtables(family, table));
}

function tableOf(family: Family, table: TableName, blob: XtablesBlob): LegacyTable {
  const { entries } = blob;
  const layout = LAYOUTS[family];
  const walked = walk(blob, layout, table);
  const heads = new Map(walked.map(({ name, start }) => [start, name]));
  const chains = walked.map(({ name, rules }): [string, Entry[]] => [
    name,
    rules.map((place) => new LegacyRule(family, entries, place, heads)),
  ]);
  const policies = walked.flatMap(({ name, policy }): [string, Policy][] => {
    if (policy === undefined) return [];
    const { hook, offset, number } = policy;
    const next = offset + entries.readUInt16LE(offset + layout.nextOffset);
    return [[name, { hook, number, bytes: entries.subarray(offset, next) }]];
  });
  return {
    family,
    table,
    chains: new Map(chains),
    blob,
    policies: new Map(policies),
    isWhole: isWhole(blob, walked),
  };
}

/** A chain has its rules and an end; one of somebody's making has a head, too; and one last entry ends the table. */
function isWhole({ count, validHooks }: XtablesBlob, walked: readonly Walked[]): boolean {
  const known = walked.reduce(
    (sum, { rules, policy }) => sum + rules.length + (policy === undefined ? 2 : 1),
    1,
  );
  const hooks = walked.reduce((bits, { policy }) => bits | (policy === undefined ? 0 : 1 << policy.hook), 0);
  return known === count && hooks === validHooks;
}

interface Walked {
  readonly name: string;
  /** Where its first rule stands; jumps lead there. */
  readonly start: number;
  readonly rules: readonly Place[];
  /** Of a chain of the kernel's. */
  readonly policy?: Place & { readonly hook: number };
}

/**
 * The blob: the rules of the built-in chains, each ending in its policy (its `underflow`); then every other chain as an ERROR
 * entry that holds its name, its rules, and an implicit RETURN; then one last ERROR entry.
 */
function walk(
  { entries, hookEntry, underflow, validHooks }: XtablesBlob,
  layout: Layout,
  table: TableName,
): Walked[] {
  const places: Place[] = [];
  for (let at = 0; at < entries.length; at += entries.readUInt16LE(at + layout.nextOffset)) {
    places.push({ offset: at, number: places.length });
  }
  const builtIn = HOOKS[table]
    .filter(({ hook }) => (validHooks & (1 << hook)) !== 0)
    .map(({ name, hook }) => {
      const [start = 0, end = 0] = [hookEntry[hook], underflow[hook]];
      const rules = places.filter(({ offset }) => offset >= start && offset < end);
      const policy = places.find(({ offset }) => offset === end);
      return policy === undefined
        ? { name, start, rules }
        : { name, start, rules, policy: { ...policy, hook } };
    });
  const heads = places.filter(({ offset }) => isHead(entries, offset, layout));
  const others = heads.slice(0, -1).map(({ offset, number }, at) => {
    const start = offset + entries.readUInt16LE(offset + layout.nextOffset);
    const name = nameAt(entries, offset + entries.readUInt16LE(offset + layout.targetOffset) + PART_DATA, 30);
    // From behind the head to before the implicit RETURN.
    return { name, start, rules: places.slice(number + 1, (heads[at + 1]?.number ?? 0) - 1) };
  });
  return [...builtIn, ...others];
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
function isHead(entries: Buffer, offset: number, layout: Layout): boolean {
  return nameAt(entries, offset + entries.readUInt16LE(offset + layout.targetOffset) + 2, 29) === 'ERROR';
}
