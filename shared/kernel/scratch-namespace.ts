import { checked, libc } from './libc.ts';
import { openOwnNamespace, runThenReturn } from './namespace.ts';

/**
 * Runs `work` in a network namespace of its own, which has nothing but a loopback interface and ends afterwards: a place to
 * ask the kernel what it can do by doing it. Comes back as inNamespace does.
 */
export function inScratchNamespace<T>(work: () => T): T {
  using home = openOwnNamespace();
  checked('unshare(CLONE_NEWNET)', libc().unshare(CLONE_NEWNET));
  return runThenReturn(home, work);
}

/** linux/sched.h */
const CLONE_NEWNET = 0x40000000;
