import { addTableCounters } from '../../shared/kernel/legacy-table.ts';
import { LAYOUTS } from '../../shared/packetfilter/iptables-legacy/layout.ts';
import { readLegacyTable, type LegacyTable } from '../../shared/packetfilter/iptables-legacy/read-table.ts';
import type { Family, TableName } from '../../shared/packetfilter/ruleset.ts';

/**
 * Whether legacy tables were exchanged since the last time this was asked, be it for the same rules again. Nothing shows that, but for
 * one thing: the implicit RETURN behind a chain's rules begins to count anew. So a number is put there that no packets would reach.
 * @returns a question that names the families
 */
export function exchangesOfLegacyTables(): () => Family[] {
  const before = new Map(TABLES.map((key) => [key, textOf(key)]));
  for (const key of TABLES) mark(key);
  return () => {
    const changed = TABLES.filter((key) => textOf(key) !== before.get(key) || !isMarked(key));
    for (const key of changed) {
      before.set(key, textOf(key));
      mark(key);
    }
    return [...new Set(changed.map(([family]) => family))];
  };
}

const TABLES: readonly (readonly [Family, TableName])[] = [
  ['ipv4', 'filter'],
  ['ipv4', 'nat'],
  ['ipv6', 'filter'],
  ['ipv6', 'nat'],
];
const MARK = 2n ** 40n;

type Key = (typeof TABLES)[number];

function textOf(key: Key): string {
  const chains = [...(readLegacyTable(...key)?.chains ?? [])];
  return chains.map(([name, rules]) => [name, ...rules.map(({ text }) => text)].join('\n')).join('\n');
}

function isMarked(key: Key): boolean {
  const table = readLegacyTable(...key);
  if (table === undefined) return true;
  const counters = LAYOUTS[table.family].matches - 16;
  return feet(table).every(({ foot }) => table.blob.entries.readBigUInt64LE(foot + counters) >= MARK);
}

function mark(key: Key): void {
  const table = readLegacyTable(...key);
  if (table === undefined || isMarked(key)) return;
  const counters = Buffer.alloc(16 * table.blob.count);
  for (const { footNumber } of feet(table)) counters.writeBigUInt64LE(MARK, 16 * footNumber);
  addTableCounters(...key, counters);
}

/** Of chains of somebody's making. */
function feet({ sections }: LegacyTable): { readonly foot: number; readonly footNumber: number }[] {
  return [...sections.values()].filter(({ hook }) => hook === undefined);
}
