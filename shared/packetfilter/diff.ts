import { trace } from '../process/trace.ts';
import { EditedRules } from './changed-table.ts';
import { type Entry, NewRule, type Rules, type Table } from './table.ts';

/**
 * One step from one table to another. In order: chains exist before rules jump to them, and a chain is deleted after the jumps to it.
 */
export type Operation =
  | { readonly do: 'createChain' | 'flushChain' | 'deleteChain'; readonly chain: string }
  | { readonly do: 'deleteRule'; readonly chain: string; readonly entry: Entry }
  /** `index` counts from 0 and is valid after all steps before this one. */
  | { readonly do: 'insertRule'; readonly chain: string; readonly index: number; readonly entry: NewRule }
  | { readonly do: 'appendRule'; readonly chain: string; readonly entry: NewRule };

/**
 * The steps that turn `before` into `after`, which `tableAfter` made of it. Rules are deleted by their text or handle and not by their number:
 * another program may have inserted one since the table was read, and deleting that one would be worse than failing.
 */
export function operations(before: Table, after: Table): Operation[] {
  const created: Operation[] = [];
  const flushed: Operation[] = [];
  const removed: Operation[] = [];
  const added: Operation[] = [];
  const deleted: Operation[] = [];
  for (const [chain, wanted] of after.touched ?? []) {
    const standing = before.chains.get(chain);
    if (standing === wanted) continue;
    if (wanted === undefined) {
      flushed.push({ do: 'flushChain', chain });
      deleted.push({ do: 'deleteChain', chain });
      continue;
    }
    if (standing === undefined) created.push({ do: 'createChain', chain });
    const script =
      editsAtTheEnd(chain, standing, wanted) ??
      editScript(chain, [...(standing ?? [])], [...wanted], after.rewritten?.has(chain) === true);
    flushed.push(...script.flushed);
    removed.push(...script.removed);
    added.push(...script.added);
  }
  const all = [...created, ...flushed, ...removed, ...added, ...deleted];
  for (const operation of all) trace(() => describe(operation));
  return all;
}

function describe(operation: Operation): string {
  const { do: verb, chain } = operation;
  return `${verb} ${chain}${'entry' in operation ? ` ${operation.entry.text}` : ''}`;
}

interface EditScript {
  readonly flushed: readonly Operation[];
  readonly removed: readonly Operation[];
  readonly added: readonly Operation[];
}

/** For an edited list of the present rules whose removed rules have handles: no comparison is needed (see survivors). */
function editsAtTheEnd(chain: string, standing: Rules | undefined, wanted: Rules): EditScript | undefined {
  if (!(wanted instanceof EditedRules) || wanted.base !== standing) return undefined;
  const gone = [...wanted.gone];
  if (!gone.every(({ handle }) => handle !== undefined)) return undefined;
  return {
    flushed: [],
    removed: gone.map((entry) => ({ do: 'deleteRule', chain, entry })),
    added: wanted.added.map((entry) => ({ do: 'appendRule', chain, entry: renewed(entry) })),
  };
}

function editScript(
  chain: string,
  standing: readonly Entry[],
  wanted: readonly Entry[],
  rewritten: boolean,
): EditScript {
  const kept = survivors(standing, wanted);
  const added = insertions(chain, kept, wanted);
  if (rewritten && kept.size === 0) {
    return { flushed: standing.length > 0 ? [{ do: 'flushChain', chain }] : [], removed: [], added };
  }
  const gone = standing.filter((entry) => !kept.has(entry));
  return { flushed: [], removed: gone.map((entry) => ({ do: 'deleteRule', chain, entry })), added };
}

/**
 * Entries that need no step. A deletion by text removes the first rule with this text: if one of several copies is removed, all are, and the ones
 * that stay are inserted again.
 */
function survivors(standing: readonly Entry[], wanted: readonly Entry[]): ReadonlySet<Entry> {
  const stays = new Set(wanted);
  const gone = standing.filter((entry) => !stays.has(entry) && entry.handle === undefined);
  const goneTexts = new Set(gone.map(({ text }) => text));
  const kept = standing.filter((entry) => stays.has(entry));
  return new Set(goneTexts.size === 0 ? kept : kept.filter(({ text }) => !goneTexts.has(text)));
}

function insertions(chain: string, kept: ReadonlySet<Entry>, wanted: readonly Entry[]): Operation[] {
  let ahead = kept.size;
  return wanted.flatMap((entry, index): Operation[] => {
    if (kept.has(entry)) {
      ahead -= 1;
      return [];
    }
    if (ahead === 0) return [{ do: 'appendRule', chain, entry: renewed(entry) }];
    return [{ do: 'insertRule', chain, index, entry: renewed(entry) }];
  });
}

/** Only a managed rule can be inserted again (see survivors): changes never duplicate unmanaged ones. */
function renewed(entry: Entry): NewRule {
  if (entry instanceof NewRule) return entry;
  if ('unmanaged' in entry.rule) throw new Error(`cannot rewrite the unmanaged rule ${entry.text}`);
  return new NewRule(entry.rule);
}
