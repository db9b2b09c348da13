import { closeSync, openSync } from 'node:fs';
import { CniCode, CniError } from '../cni/errors.ts';
import { checked, isErrno, libc } from './libc.ts';
import { deadlineIn, sleep } from './clock.ts';

/**
 * Runs `work` while holding an exclusive flock(2) on `file`, the kind of lock of host-local's store and of flock(1).
 * The file is created with `mode` if absent and never removed: a removed lock file would let two holders in.
 * The lock ends with the process, however it ends. Not re-entrant: a second withLock on the same file in `work` times out.
 * @throws CniError 11 when another holder keeps it longer than `timeoutMs`
 */
export function withLock<T>(file: string, timeoutMs: number, work: () => T, mode = 0o600): T {
  const fd = openSync(file, CREATE_READ_ONLY, mode);
  try {
    acquire(fd, file, timeoutMs);
    return work();
  } finally {
    closeSync(fd);
  }
}

/** O_RDONLY|O_CREAT|O_CLOEXEC: a child process must not keep the lock alive. */
const CREATE_READ_ONLY = 0o2000100;
/** sys/file.h */
const LOCK_EX = 2;
const LOCK_NB = 4;
/** Polled: a blocking flock could only be bounded by a signal, and node offers none that stops a call on its main thread. */
const FIRST_PAUSE_MS = 0.5;
const LONGEST_PAUSE_MS = 10;

function acquire(fd: number, file: string, timeoutMs: number): void {
  const deadline = deadlineIn(timeoutMs);
  for (let pause = FIRST_PAUSE_MS; !tryLock(fd, file); pause = Math.min(pause * 2, LONGEST_PAUSE_MS)) {
    if (deadline.passed()) {
      throw new CniError(
        CniCode.TryAgainLater,
        `lock ${file} is held by another process for over ${timeoutMs} ms`,
        {
          details: `find the holder: fuser -v ${file}`,
        },
      );
    }
    sleep(Math.min(pause, Math.max(deadline.left(), 0)));
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
