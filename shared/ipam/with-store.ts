import { existsSync, mkdirSync } from 'node:fs';
import { CniCode, CniError } from '../cni/errors.ts';
import { withFileLock } from '../kernel/locks.ts';
import { Store } from './store.ts';

/** The reference's. */
const LOCK_MODE = 0o750;

/**
 * Runs `work` on the network's store while holding its lock, which the reference honours too (and holds for each of its steps).
 * @param options.create whether a missing store is made; without it, `work` is not run and undefined returned
 * @param options.patienceMs how long to wait for the lock, if not until the call's deadline
 * @throws CniError 11 when the lock is not to be had, 5 when the file system refuses
 */
export function withStore<T>(
  folder: string,
  options: { create: boolean; patienceMs?: number },
  work: (store: Store) => T,
): T | undefined {
  try {
    if (options.create) mkdirSync(folder, { recursive: true, mode: 0o755 });
    else if (!existsSync(folder)) return undefined;
    const lock = {
      mode: LOCK_MODE,
      ...(options.patienceMs !== undefined && { timeoutMs: options.patienceMs }),
    };
    return withFileLock(`${folder}/lock`, lock, () => workOn(folder, work));
  } catch (thrown) {
    // Removed by an operator while we waited: then there is nothing to release.
    if (!options.create && !existsSync(folder)) return undefined;
    throw asStoreError(folder, thrown);
  }
}

function workOn<T>(folder: string, work: (store: Store) => T): T {
  const store = new Store(folder);
  try {
    const result = work(store);
    store.keep();
    return result;
  } finally {
    store.close();
  }
}

/** What node:fs throws, as an error that says which store cannot be used and why. */
function asStoreError(folder: string, thrown: unknown): unknown {
  if (thrown instanceof CniError || !(thrown instanceof Error) || !('syscall' in thrown)) return thrown;
  return new CniError(CniCode.IoFailure, `cannot use the lease store ${folder}: ${thrown.message}`, {
    details: 'it must be a folder on a writable file system with space left',
    cause: thrown,
  });
}
