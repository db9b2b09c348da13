import { isChainName } from '../names.ts';
import type { Family } from '../ruleset.ts';
import { NewRule, type Entry, type Rules } from '../rules.ts';
import { encodeEntry, standardTarget } from './encode-entry.ts';
import { LAYOUTS, VERDICTS } from './layout.ts';
import { LegacyRule } from './legacy-rule.ts';
import { encodePart } from './part.ts';
import type { LegacyTable, Section } from './read-table.ts';

/** A chain as it is going to be written. */
export interface PlannedChain {
  readonly name: string;
  /** Where it stands so far. */
  readonly section: Section | undefined;
  readonly isUntouched: boolean;
  /** Empty for a chain of the kernel's. */
  readonly head: Buffer;
  readonly rules: readonly (LegacyRule | NewEntry)[];
  readonly foot: Buffer;
  /** Of all of it. */
  readonly size: number;
}

/** A rule that is not in the kernel yet. */
export interface NewEntry {
  readonly bytes: Buffer;
  /** The chain that its verdict has to lead to. */
  readonly jump: string | undefined;
}

/** @returns undefined when only iptables can write it, or would refuse */
export function planChain(
  { family, chains, blob, sections }: LegacyTable,
  name: string,
  entries: Rules,
): PlannedChain | undefined {
  const section = sections.get(name);
  if (section === undefined && !isChainName(name)) return undefined;
  const isUntouched = section !== undefined && entries === chains.get(name);
  const rules = isUntouched ? chains.get(name) : [...entries].map((entry) => planRule(family, entry));
  if (rules?.every((rule) => rule !== undefined) !== true) return undefined;
  const head =
    section === undefined ? headingEntry(family, name) : blob.entries.subarray(section.begin, section.start);
  const foot = section === undefined ? endingEntry(family) : blob.entries.subarray(section.foot, section.end);
  const size = isUntouched ? section.end - section.begin : head.length + sizeOf(rules) + foot.length;
  return { name, section, isUntouched, head, rules, foot, size };
}

function planRule(family: Family, entry: Entry): LegacyRule | NewEntry | undefined {
  if (entry instanceof LegacyRule) return entry;
  if (!(entry instanceof NewRule)) return undefined;
  const { rule } = entry;
  const bytes = encodeEntry(family, rule);
  const jump = rule.target.kind === 'jump' ? rule.target.chain : undefined;
  return bytes === undefined ? undefined : { bytes, jump };
}

function sizeOf(rules: readonly (LegacyRule | NewEntry)[]): number {
  return rules.reduce(
    (sum, rule) => sum + (rule instanceof LegacyRule ? rule.next - rule.offset : rule.bytes.length),
    0,
  );
}

/** XT_FUNCTION_MAXNAMELEN */
const ERROR_NAME_SIZE = 30;

/** Before a chain of somebody's, and, by the name ERROR, behind all. struct xt_error_target: xt_entry_target of the name ERROR, errorname 30. */
export function headingEntry(family: Family, name: string): Buffer {
  const info = Buffer.alloc(ERROR_NAME_SIZE);
  info.write(name, 0, ERROR_NAME_SIZE - 1);
  return bare(family, encodePart({ name: 'ERROR', revision: 0, info }));
}

/** The implicit RETURN behind the rules of a chain of somebody's. */
function endingEntry(family: Family): Buffer {
  return bare(family, standardTarget(VERDICTS.return));
}

/** An entry that tests nothing. */
function bare(family: Family, target: Buffer): Buffer {
  const { matches, targetOffset, nextOffset } = LAYOUTS[family];
  const bytes = Buffer.concat([Buffer.alloc(matches), target]);
  bytes.writeUInt16LE(matches, targetOffset);
  bytes.writeUInt16LE(bytes.length, nextOffset);
  return bytes;
}
