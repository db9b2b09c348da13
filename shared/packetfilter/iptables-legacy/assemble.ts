import type { XtablesBlob } from '../../kernel/xtables.ts';
import type { Family } from '../ruleset.ts';
import { NewRule, type Entry } from '../table.ts';
import { encodeEntry, standardTarget } from './encode-entry.ts';
import { LAYOUTS, PART_DATA, VERDICTS } from './layout.ts';
import { LegacyRule } from './legacy-rule.ts';
import { encodePart } from './part.ts';
import type { LegacyTable } from './read-table.ts';

/** A table to be written. */
export interface Assembly {
  readonly blob: XtablesBlob;
  /** For each of its entries, the number of the standing entry whose packets it goes on counting; undefined: it begins at 0. */
  readonly continues: readonly (number | undefined)[];
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
export function assemble(
  before: LegacyTable,
  chains: ReadonlyMap<string, readonly Entry[]>,
): Assembly | undefined {
  if (!before.isWhole) return undefined;
  const laidOut = layOut(before, chains);
  return laidOut === undefined ? undefined : write(before, laidOut);
}

/** An entry that goes into the table. */
interface Piece {
  readonly bytes: Buffer;
  /** What the offset in its verdict has to mean: the first rule of that chain, or the entry behind it; undefined: it is none. */
  readonly leads?: LegacyRule['leads'];
  readonly continues?: number;
}

interface LaidOut {
  readonly pieces: readonly Piece[];
  /** By chain: number of its first rule's piece, and of its policy's. */
  readonly starts: ReadonlyMap<string, number>;
  readonly ends: ReadonlyMap<string, number>;
}

function layOut(before: LegacyTable, chains: ReadonlyMap<string, readonly Entry[]>): LaidOut | undefined {
  const { family, policies } = before;
  const pieces: (Piece | undefined)[] = [];
  const starts = new Map<string, number>();
  const ends = new Map<string, number>();
  const place = (name: string, entries: readonly Entry[], end: Piece): void => {
    starts.set(name, pieces.length);
    for (const entry of entries) pieces.push(pieceOf(family, entry));
    ends.set(name, pieces.length);
    pieces.push(end);
  };
  for (const [name, { bytes, number }] of policies) {
    const entries = chains.get(name);
    // Deleted: iptables is to say what it thinks of that.
    if (entries === undefined) return undefined;
    place(name, entries, { bytes, continues: number });
  }
  const end = { bytes: bare(family, standardTarget(VERDICTS.return)) };
  for (const name of [...chains.keys()].filter((chain) => !policies.has(chain)).sort(byBytes)) {
    pieces.push({ bytes: errorEntry(family, name) });
    place(name, chains.get(name) ?? [], end);
  }
  pieces.push({ bytes: errorEntry(family, 'ERROR') });
  const known = pieces.filter((piece) => piece !== undefined);
  return known.length === pieces.length ? { pieces: known, starts, ends } : undefined;
}

function pieceOf(family: Family, entry: Entry): Piece | undefined {
  if (entry instanceof LegacyRule) {
    const { bytes, leads, number } = entry;
    return { bytes, leads, continues: number };
  }
  const bytes = entry instanceof NewRule ? encodeEntry(family, entry.rule) : undefined;
  if (bytes === undefined || !(entry instanceof NewRule)) return undefined;
  const { target } = entry.rule;
  return target.kind === 'jump' ? { bytes, leads: { chain: target.chain } } : { bytes };
}

function write(before: LegacyTable, { pieces, starts, ends }: LaidOut): Assembly | undefined {
  const { family, blob, policies } = before;
  const { targetOffset } = LAYOUTS[family];
  const offsets: number[] = [];
  let size = 0;
  for (const { bytes } of pieces) {
    offsets.push(size);
    size += bytes.length;
  }
  const entries = Buffer.alloc(size);
  for (const [at, { bytes, leads }] of pieces.entries()) {
    const offset = offsets[at] ?? 0;
    entries.set(bytes, offset);
    if (leads === undefined) continue;
    const to = leads === 'next' ? at + 1 : leads.chain === undefined ? undefined : starts.get(leads.chain);
    // No such chain, or one of the kernel's, which no rule may jump to.
    if (to === undefined || (leads !== 'next' && policies.has(leads.chain ?? ''))) return undefined;
    entries.writeInt32LE(offsets[to] ?? 0, offset + bytes.readUInt16LE(targetOffset) + PART_DATA);
  }
  const byHook = (places: ReadonlyMap<string, number>): number[] => {
    const hooks = [0, 0, 0, 0, 0];
    for (const [name, { hook }] of policies) hooks[hook] = offsets[places.get(name) ?? 0] ?? 0;
    return hooks;
  };
  return {
    blob: {
      validHooks: blob.validHooks,
      hookEntry: byHook(starts),
      underflow: byHook(ends),
      count: pieces.length,
      entries,
    },
    continues: pieces.map(({ continues }) => continues),
  };
}

/** strcmp(3): libiptc sorts chains by the bytes of their names. */
function byBytes(one: string, other: string): number {
  return Buffer.compare(Buffer.from(one), Buffer.from(other));
}

/** XT_FUNCTION_MAXNAMELEN */
const ERROR_NAME_SIZE = 30;

/** struct xt_error_target: xt_entry_target of the name ERROR, errorname 30; no packet comes here. */
function errorEntry(family: Family, name: string): Buffer {
  const info = Buffer.alloc(ERROR_NAME_SIZE);
  info.write(name, 0, ERROR_NAME_SIZE - 1);
  return bare(family, encodePart({ name: 'ERROR', revision: 0, info }));
}

/** An entry that tests nothing. */
function bare(family: Family, target: Buffer): Buffer {
  const { matches, targetOffset, nextOffset } = LAYOUTS[family];
  const bytes = Buffer.concat([Buffer.alloc(matches), target]);
  bytes.writeUInt16LE(matches, targetOffset);
  bytes.writeUInt16LE(bytes.length, nextOffset);
  return bytes;
}
