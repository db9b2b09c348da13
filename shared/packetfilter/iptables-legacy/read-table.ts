import { readXtables, type XtablesBlob } from '../../kernel/xtables.ts';
import type { Family, TableName } from '../ruleset.ts';
import type { Entry, Table } from '../table.ts';
import { LegacyRule } from './legacy-rule.ts';
import { LAYOUTS, nameAt, type Layout } from './layout.ts';

/**
 * A table of iptables-legacy, read without starting a program. Rules of shapes that nobody here writes are foreign and
 * without words: whoever needs those must ask iptables-save.
 * @returns undefined when the table is not in use
 */
export function readLegacyTable(family: Family, table: TableName): Table | undefined {
  const blob = readXtables(family, table);
  if (blob === undefined) return undefined;
  const walked = walk(blob, LAYOUTS[family], table);
  const heads = new Map(walked.map(({ name, start }) => [start, name]));
  const chains = walked.map(({ name, offsets }): [string, Entry[]] => [
    name,
    offsets.map((offset) => new LegacyRule(family, blob.entries, offset, heads)),
  ]);
  return { family, table, chains: new Map(chains) };
}

interface Walked {
  readonly name: string;
  /** Where its first rule stands; jumps lead there. */
  readonly start: number;
  readonly offsets: readonly number[];
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
  const offsets: number[] = [];
  for (let at = 0; at < entries.length; at += entries.readUInt16LE(at + layout.nextOffset)) offsets.push(at);
  const builtIn = HOOKS[table]
    .filter(({ hook }) => (validHooks & (1 << hook)) !== 0)
    .map(({ name, hook }) => {
      const [start = 0, end = 0] = [hookEntry[hook], underflow[hook]];
      return { name, start, offsets: offsets.filter((offset) => offset >= start && offset < end) };
    });
  const heads = offsets.flatMap((offset, at) => (isHead(entries, offset, layout) ? [at] : []));
  const others = heads.slice(0, -1).map((head, at) => {
    const own = offsets[head] ?? 0;
    const start = own + entries.readUInt16LE(own + layout.nextOffset);
    const name = nameAt(entries, own + entries.readUInt16LE(own + layout.targetOffset) + TARGET_DATA, 30);
    // From behind the head to before the implicit RETURN.
    return { name, start, offsets: offsets.slice(head + 1, (heads[at + 1] ?? 0) - 1) };
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
/** struct xt_entry_target: size u16, name 29, revision u8; then its data */
const TARGET_DATA = 32;

function isHead(entries: Buffer, offset: number, layout: Layout): boolean {
  return nameAt(entries, offset + entries.readUInt16LE(offset + layout.targetOffset) + 2, 29) === 'ERROR';
}
