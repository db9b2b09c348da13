import { CniCode, CniError } from '../../cni/errors.ts';
import type { Deadline } from '../../kernel/deadline.ts';
import { KernelError, isErrno } from '../../kernel/errno.ts';
import { withFileLock, withFreeFileLock } from '../../kernel/locks.ts';
import { addTableCounters, replaceTableBlob } from '../../kernel/legacy-table.ts';
import { type Assembly, assemble } from './assemble.ts';
import { type LegacyTable, makeLegacyTable, readLegacyTable } from './read-table.ts';
import { emptyTable } from '../iptables/save-restore.ts';
import type { Family, TableName } from '../ruleset.ts';
import { type Table, differs } from '../table.ts';

/** `done`: the table is as it shall be. `left`: nothing was changed, and only iptables' programs may be able to; with the kernel's error. */
export type Outcome = { readonly is: 'done' } | { readonly is: 'left'; readonly cause?: KernelError };

/**
 * Changes a table of iptables-legacy without starting a program, as libiptc does: the whole table is read, laid out anew and put in the
 * place of the one that stands there, all under the lock of iptables. Packets are counted on: a rule that stays keeps its counters, those
 * of the very moment of the exchange included.
 * @param outcome the table as it shall be; called again after every reading
 */
export function commitLegacy(
  family: Family,
  table: TableName,
  outcome: (before: Table) => Table,
  lock: XtablesLock,
): Outcome {
  const isNeedless = (): boolean => {
    // A table that nobody uses is not looked at: that would make it.
    const before = readLegacyTable(family, table) ?? emptyTable(family, table);
    return !differs(before, outcome(before));
  };
  const commit = (): Outcome => commitLocked(family, table, outcome);
  try {
    return withXtablesLock(lock, commit, isNeedless) ?? DONE;
  } catch (thrown) {
    // Whatever the kernel's reason, the program may know how to go on (load a module), and will say it better if not.
    if (thrown instanceof KernelError) return { is: 'left', cause: thrown };
    throw thrown;
  }
}

const DONE: Outcome = { is: 'done' };

/** Only programs that leave the lock alone come in between. */
const MOST_ATTEMPTS = 20;

function commitLocked(family: Family, table: TableName, outcome: (before: Table) => Table): Outcome {
  for (let attempt = 1; ; attempt++) {
    const read = readLegacyTable(family, table);
    const first = read ?? emptyTable(family, table);
    const wanted = outcome(first);
    if (!differs(first, wanted)) return DONE;
    // It has to exist to be written.
    const before = read ?? makeLegacyTable(family, table);
    const assembly = assemble(before, (read === undefined ? outcome(before) : wanted).chains);
    if (assembly === undefined) return { is: 'left' };
    try {
      exchange(before, assembly);
      return DONE;
    } catch (thrown) {
      if (!isErrno(thrown, 'EAGAIN') || attempt >= MOST_ATTEMPTS) throw thrown;
    }
  }
}

function exchange({ family, table, blob }: LegacyTable, assembly: Assembly): void {
  const counted = replaceTableBlob(family, table, assembly.blob, blob.count);
  const carried = Buffer.alloc(COUNTERS_SIZE * assembly.blob.count);
  for (const { from, to, count } of assembly.continued) {
    counted.copy(carried, COUNTERS_SIZE * to, COUNTERS_SIZE * from, COUNTERS_SIZE * (from + count));
  }
  try {
    addTableCounters(family, table, carried);
  } catch (thrown) {
    // Somebody who takes no lock has replaced the table already: the rules stand, and counts are no reason to fail.
    if (!isErrno(thrown, 'EINVAL')) throw thrown;
  }
}

/** struct xt_counters */
const COUNTERS_SIZE = 16;

export interface XtablesLock {
  /** As in select.ts. */
  readonly where: 'host' | 'container';
  readonly deadline: Deadline;
}

/**
 * Runs `work` under the lock that every iptables-legacy command takes, one for all namespaces of a host. A container's tables, which
 * only this process writes, need none.
 * @param isNeedless asked when somebody else holds the lock: whether there is nothing to wait for
 * @returns what `work` gives; undefined where there was no need of it
 * @throws CniError 11 when the lock is held for too long, 5 when there can be none
 */
export function withXtablesLock<T extends object>(
  { where, deadline }: XtablesLock,
  work: () => T,
  isNeedless: () => boolean,
): T | undefined {
  if (where === 'container') return work();
  const file = lockFile();
  return (
    taking(file, work, (inside) => withFreeFileLock(file, LOCK_OPTIONS, inside)) ??
    (isNeedless()
      ? undefined
      : taking(file, work, (inside) =>
          withFileLock(file, { ...LOCK_OPTIONS, timeoutMs: deadline.remainingMs() }, inside),
        ))
  );
}

/** iptables follows symbolic links here. */
const LOCK_OPTIONS = { followLinks: true };

/** As iptables finds it: what XTABLES_LOCKFILE names, if anything. */
function lockFile(): string {
  const named = process.env['XTABLES_LOCKFILE'] ?? '';
  return named === '' ? '/run/xtables.lock' : named;
}

/** Tells what goes wrong with the lock from what goes wrong under it. */
function taking<T>(file: string, work: () => T, take: (inside: () => T) => T | undefined): T | undefined {
  let held = false;
  const inside = (): T => {
    held = true;
    return work();
  };
  try {
    return take(inside);
  } catch (thrown) {
    if (held || thrown instanceof CniError) throw thrown;
    const text = thrown instanceof Error ? thrown.message : String(thrown);
    throw new CniError(CniCode.IoFailure, `cannot take the lock of iptables-legacy, ${file}: ${text}`, {
      details:
        'every change of its tables has to be made under it; a read-only or missing folder has to be mended',
      cause: thrown,
    });
  }
}
