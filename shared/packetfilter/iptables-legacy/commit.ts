import { isErrno, KernelError } from '../../kernel/errno.ts';
import { addXtablesCounters, replaceXtables } from '../../kernel/xtables.ts';
import { emptyTable } from '../iptables/save.ts';
import type { Family, TableName } from '../ruleset.ts';
import { differs, type Table } from '../table.ts';
import { assemble, type Assembly } from './assemble.ts';
import { makeLegacyTable, readLegacyTable, type LegacyTable } from './read-table.ts';
import { withXtablesLock, type XtablesLock } from './xtables-lock.ts';

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
  const counted = replaceXtables(family, table, assembly.blob, blob.count);
  const carried = Buffer.alloc(COUNTERS_SIZE * assembly.blob.count);
  for (const { from, to, count } of assembly.continued) {
    counted.copy(carried, COUNTERS_SIZE * to, COUNTERS_SIZE * from, COUNTERS_SIZE * (from + count));
  }
  try {
    addXtablesCounters(family, table, carried);
  } catch (thrown) {
    // Somebody who takes no lock has replaced the table already: the rules stand, and counts are no reason to fail.
    if (!isErrno(thrown, 'EINVAL')) throw thrown;
  }
}

/** struct xt_counters */
const COUNTERS_SIZE = 16;
