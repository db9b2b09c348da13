import type { TableBlob } from '../../kernel/legacy-table.ts';
import { encodeEntry, encodePart, standardTarget } from './encode-entry.ts';
import { BlobView, LAYOUTS, VERDICTS } from './layout.ts';
import { LegacyRule } from './legacy-rule.ts';
import type { LegacyTable, Section } from './read-table.ts';
import { isChainName } from '../names.ts';
import type { Family } from '../ruleset.ts';
import { type Entry, NewRule, type Rules } from '../table.ts';

/** A table to be written. */
export interface Assembly {
  readonly blob: TableBlob;
  readonly continued: readonly ContinuedCounts[];
}

/** Entries that go on counting what entries of the standing table counted, by their numbers; all others begin at 0. */
export interface ContinuedCounts {
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/**
 * The bytes of a table that holds these chains, in the order in which iptables-legacy writes them: chains of the kernel's as they stood,
 * then the others by name.
 * ```
 *  rules of INPUT ... | policy | rules of FORWARD ... | policy | ... | ERROR "A" | rules of A ... | RETURN | ... | ERROR "ERROR"
 *  ^ hook_entry         ^ underflow                                                ^ jumps to A lead here
 * ```
 * Foreign rules keep their bytes; of those only offsets change: where a jump leads, and where a rule without a target goes on.
 * @returns undefined when a rule is one that only iptables can put into bytes or would refuse, or the table one that nobody here made
 */
export function assemble(before: LegacyTable, chains: ReadonlyMap<string, Rules>): Assembly | undefined {
  if (!before.isWhole) return undefined;
  const names = namesInOrder(before, chains);
  const planned = names?.map((name) => planChain(before, name, chains.get(name) ?? []));
  if (planned?.every((chain) => chain !== undefined) !== true) return undefined;
  return new Writer(before, planned).assembly();
}

/** libiptc sorts by strcmp(3), and names were read byte by byte. A deleted chain of the kernel's gives undefined: iptables is to refuse it. */
function namesInOrder({ sections }: LegacyTable, chains: ReadonlyMap<string, Rules>): string[] | undefined {
  const kernels = [...sections].flatMap(([name, { hook }]) => (hook === undefined ? [] : [name]));
  if (!kernels.every((name) => chains.has(name))) return undefined;
  return [...kernels, ...[...chains.keys()].filter((name) => !kernels.includes(name)).sort()];
}

class Writer {
  readonly #before: LegacyTable;
  readonly #view: BlobView;
  /** Where the first rule of a chain comes to stand: by the chain's name, and by where it stood. None may jump to the kernel's chains. */
  readonly #starts = new Map<string, number>();
  readonly #moved = new Map<number, number>();
  readonly #continued: ContinuedCounts[] = [];
  readonly #hookEntry = [0, 0, 0, 0, 0];
  readonly #underflow = [0, 0, 0, 0, 0];
  #at = 0;
  #number = 0;
  #isSound = true;

  constructor(before: LegacyTable, chains: readonly PlannedChain[]) {
    this.#before = before;
    const size = this.#layOut(chains);
    const last = headingEntry(before.family, 'ERROR');
    this.#view = new BlobView(before.family, Buffer.alloc(size + last.length), new Map());
    for (const chain of chains) {
      if (chain.isUntouched) this.#copyChain(chain);
      else this.#writeChain(chain);
    }
    this.#put(last);
  }

  /** @returns undefined when a jump leads nowhere */
  assembly(): Assembly | undefined {
    if (!this.#isSound) return undefined;
    const blob = {
      validHooks: this.#before.blob.validHooks,
      hookEntry: this.#hookEntry,
      underflow: this.#underflow,
      count: this.#number,
      entries: this.#view.entries,
    };
    return { blob, continued: this.#continued };
  }

  #layOut(chains: readonly PlannedChain[]): number {
    let size = 0;
    for (const chain of chains) {
      const start = size + chain.head.length;
      size += chain.size;
      if (chain.section?.hook !== undefined) continue;
      this.#starts.set(chain.name, start);
      if (chain.section !== undefined) this.#moved.set(chain.section.start, start);
    }
    return size;
  }

  /** In one piece: nearly all of a large table. */
  #copyChain({ section, head, rules, size }: PlannedChain): void {
    if (section === undefined) return;
    const { hook, begin, end, foot, number } = section;
    const shift = this.#at - begin;
    this.#before.blob.entries.copy(this.#view.entries, this.#at, begin, end);
    for (const rule of rules) if (rule instanceof LegacyRule) this.#relocate(rule, rule.offset + shift);
    if (head.length > 0) this.#number += 1;
    // A policy stands behind the rules, in numbers too. What an implicit RETURN counts nobody ever sees.
    this.#continue(number, rules.length + (hook === undefined ? 0 : 1));
    this.#markHook(hook, this.#at, foot + shift);
    this.#number += rules.length + 1;
    this.#at += size;
  }

  #writeChain({ section, head, rules, foot }: PlannedChain): void {
    const begin = this.#at;
    if (head.length > 0) this.#put(head);
    for (let at = 0; at < rules.length;) {
      const rule = rules[at];
      if (rule instanceof LegacyRule) {
        at = this.#copyRun(rules, at, rule);
      } else {
        if (rule !== undefined) this.#lead(rule, this.#put(rule.bytes));
        at += 1;
      }
    }
    if (section?.hook !== undefined) this.#continue(section.footNumber, 1);
    this.#markHook(section?.hook, begin, this.#at);
    this.#put(foot);
  }

  /** Rules that stood one behind the other, in one piece. @returns the place of the rule behind them */
  #copyRun(rules: PlannedChain['rules'], from: number, first: LegacyRule): number {
    const shift = this.#at - first.offset;
    let to = from;
    let end = first.offset;
    for (let rule = rules[to]; rule instanceof LegacyRule && rule.offset === end; rule = rules[++to])
      end = rule.next;
    this.#before.blob.entries.copy(this.#view.entries, this.#at, first.offset, end);
    for (let at = from; at < to; at++) {
      const rule = rules[at];
      if (rule instanceof LegacyRule) this.#relocate(rule, rule.offset + shift);
    }
    this.#continue(first.number, to - from);
    this.#at += end - first.offset;
    this.#number += to - from;
    return to;
  }

  /** @returns where the entry stands */
  #put(entry: Buffer): number {
    const at = this.#at;
    this.#view.entries.set(entry, at);
    this.#at += entry.length;
    this.#number += 1;
    return at;
  }

  #continue(from: number, count: number): void {
    if (count > 0) this.#continued.push({ from, to: this.#number, count });
  }

  #markHook(hook: number | undefined, begin: number, policy: number): void {
    if (hook === undefined) return;
    this.#hookEntry[hook] = begin;
    this.#underflow[hook] = policy;
  }

  /** An offset means the entry behind the rule itself, or the first rule of a chain. */
  #relocate(rule: LegacyRule, at: number): void {
    const verdict = this.#view.verdict(at);
    if (verdict === undefined || verdict < 0) return;
    const isNext = verdict === rule.next;
    this.#setVerdict(at, isNext ? at + rule.next - rule.offset : this.#moved.get(verdict));
  }

  #lead({ jump }: NewEntry, at: number): void {
    if (jump !== undefined) this.#setVerdict(at, this.#starts.get(jump));
  }

  #setVerdict(at: number, offset: number | undefined): void {
    if (offset === undefined) this.#isSound = false;
    else this.#view.setVerdict(at, offset);
  }
}

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
