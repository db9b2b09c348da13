import { CniCode, CniError } from '../../cni/errors.ts';
import type { Deadline } from '../../kernel/deadline.ts';
import { withFileLock, withFreeFileLock } from '../../kernel/locks.ts';

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
