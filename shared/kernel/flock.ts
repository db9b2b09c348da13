import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { CniCode, CniError } from '../cni/errors.ts';
import { checked, isErrno, libc } from './libc.ts';
import { deadlineIn, sleep, type Deadline } from './clock.ts';

/**
 * Runs `work` while holding an exclusive flock(2) on `file`, the kind of lock of host-local's store and of flock(1).
 * The file is created with `mode` if absent and never removed: a removed lock file would let two holders in.
 * The lock ends with the process, however it ends. Not re-entrant: a second withLock on the same file in `work` times out.
 * @throws CniError 11 when another holder keeps it longer than `timeoutMs`
 */
export function withLock<T>(file: string, timeoutMs: number, work: () => T, mode = 0o600): T {
  const fd = openLocked(file, { milliseconds: timeoutMs, deadline: deadlineIn(timeoutMs) }, mode);
  try {
    return work();
  } finally {
    closeSync(fd);
  }
}

/**
 * As {@link withLock} without waiting.
 * @returns undefined when another holder has the lock: `work` was not called
 */
export function withFreeLock<T>(file: string, work: () => T, mode = 0o600): T | undefined {
  const fd = openSync(file, CREATE_READ_ONLY, mode);
  try {
    return tryLock(fd, file) ? work() : undefined;
  } finally {
    closeSync(fd);
  }
}

interface Patience {
  readonly milliseconds: number;
  readonly deadline: Deadline;
}

/**
 * Others do remove the file: `rm -rf` of a network's leases is what operators do when its addresses ran out. Whoever waited then has
 * the lock of a file that nobody finds any more, and begins again.
 */
function openLocked(file: string, patience: Patience, mode: number): number {
  for (;;) {
    const fd = openSync(file, CREATE_READ_ONLY, mode);
    let isOurs = false;
    try {
      isOurs = acquire(fd, file, patience) === 'at once' || isStill(fd, file);
      if (isOurs) return fd;
    } finally {
      if (!isOurs) closeSync(fd);
    }
  }
}

function isStill(fd: number, file: string): boolean {
  const now = statSync(file, { bigint: true, throwIfNoEntry: false });
  const opened = fstatSync(fd, { bigint: true });
  return now !== undefined && now.dev === opened.dev && now.ino === opened.ino;
}

/** O_RDONLY|O_CREAT|O_CLOEXEC: a child process must not keep the lock alive. */
const CREATE_READ_ONLY = 0o2000100;
/** sys/file.h */
const LOCK_EX = 2;
const LOCK_NB = 4;
/** Polled: a blocking flock could only be bounded by a signal, and node offers none that stops a call on its main thread. */
const FIRST_PAUSE_MS = 0.5;
const LONGEST_PAUSE_MS = 10;

function acquire(fd: number, file: string, { milliseconds, deadline }: Patience): 'at once' | 'after a wait' {
  if (tryLock(fd, file)) return 'at once';
  for (let pause = FIRST_PAUSE_MS; ; pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    if (deadline.passed()) {
      throw new CniError(
        CniCode.TryAgainLater,
        `lock ${file} is held by another process for over ${milliseconds} ms`,
        {
          details: `find the holder: fuser -v ${file}`,
        },
      );
    }
    sleep(Math.min(pause, Math.max(deadline.left(), 0)));
    if (tryLock(fd, file)) return 'after a wait';
  }
}

function tryLock(fd: number, file: string): boolean {
  try {
    checked(`flock(${file})`, libc().flock(fd, LOCK_EX | LOCK_NB));
    return true;
  } catch (thrown) {
    if (isErrno(thrown, 'EAGAIN', 'EINTR')) return false;
    throw thrown;
  }
}
