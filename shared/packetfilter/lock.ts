import { withLock } from '../kernel/flock.ts';

/**
 * Runs `work` while no other process of ours changes the packet filter of the network namespace that we are in.
 * The lock is a flock on the namespace itself: the namespace is exactly what the tables belong to, it is the same file in
 * every mount namespace, and there is no file to create (read-only /run), to clean up, or to remove too early.
 * @throws CniError 11 when another process holds it for longer than `timeoutMs`
 */
export function withTableLock<T>(timeoutMs: number, work: () => T): T {
  return withLock('/proc/thread-self/ns/net', timeoutMs, work);
}
