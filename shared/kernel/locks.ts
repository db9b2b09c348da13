import {
  chmodSync,
  closeSync,
  constants,
  existsSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  unlinkSync,
  type Stats,
} from 'node:fs';
import { CniCode, CniError } from '../cni/errors.ts';
import { deadlineIn, restartInQueue, sleep, timeoutError } from './deadline.ts';
import { isErrno } from './errno.ts';
import { requireRegular } from './files.ts';
import { checked, libc } from './libc.ts';
import type { NetworkNamespace } from './namespace.ts';

/**
 * Exclusive locks between processes, by flock(2): a lock ends with the process that holds it, however that ends. None is re-entrant.
 *
 * Our own locks are files that only root can open (0600 in the 0700 directory {@link LOCK_DIRECTORY}), so no unprivileged process can hold
 * one. The holder removes the file before it releases the lock; a file that a killed process left is used again by the next holder.
 */
export const LOCK_DIRECTORY = '/run/weft/locks';

/**
 * Runs `work` while no other process of the suite holds the lock `name`.
 * @param name what the lock protects: letters, digits, `.`, `_`, `-`
 * @throws CniError 11 when another process holds it until the call's deadline; 5 when the lock file cannot be created
 */
export function withLock<T>(name: string, work: () => T): T {
  if (!/^[\w.-]+$/.test(name) || name.startsWith('.')) throw new TypeError(`invalid lock name "${name}"`);
  const directory = lockDirectory();
  if (directory === undefined) {
    throw new CniError(CniCode.IoFailure, `cannot create lock files in ${LOCK_DIRECTORY}`, {
      details:
        process.geteuid?.() === 0
          ? 'it must be a directory that only root can write to, on a writable file system'
          : 'run it as root',
    });
  }
  return withOwnFile(`${directory}/${name}`, work);
}

/** As {@link withLock}; without a lock where lock files cannot be created. For work that only calls for one container at once can disturb. */
export function withLockWherePossible<T>(name: string, work: () => T): T {
  return lockDirectory() === undefined ? work() : withLock(name, work);
}

/**
 * Runs `work` while no other process of the suite changes this network namespace. The lock is named after the namespace's identity
 * (device and inode), so every path to it means the same lock.
 *
 * Where {@link LOCK_DIRECTORY} cannot be used (read-only /run, a user namespace), the lock is a flock on the namespace's own file. A process
 * inside the namespace could then delay a call until its deadline.
 * @param namespace default: the one that the calling thread is in
 * @throws CniError 11 when another process holds it until the call's deadline
 */
export function withNamespaceLock<T>(work: () => T, namespace?: NetworkNamespace): T {
  const file = namespace === undefined ? '/proc/thread-self/ns/net' : `/proc/self/fd/${namespace.fd}`;
  const directory = lockDirectory();
  if (directory === undefined) return withFileLock(file, { followLinks: true }, work);
  const { dev, ino } = statSync(file);
  return withOwnFile(`${directory}/netns-${dev}-${ino}`, work);
}

/** Removes lock files that killed processes left behind; those in use stay. */
export function removeUnusedLocks(): void {
  if (!existsSync(LOCK_DIRECTORY) || lockDirectory() === undefined) return;
  for (const name of readdirSync(LOCK_DIRECTORY)) {
    const file = `${LOCK_DIRECTORY}/${name}`;
    const fd = tryToLock(file, OWN_FILE);
    if (fd !== undefined) removeAndRelease(file, fd);
  }
}

export interface FileLockOptions {
  /** Of a file that has to be created; default 0600. */
  readonly mode?: number;
  /** Whether `file` may be a symbolic link; default false. */
  readonly followLinks?: boolean;
  /** Default: all that the call has left. */
  readonly timeoutMs?: number;
  /** Whether each holder removes the file: a new file then shows that the lock was handed on, and the call's time starts again. */
  readonly removed?: boolean;
}

/**
 * Runs `work` under a lock that other programs take as well: host-local's `lock`, /run/xtables.lock. The file is created when absent and
 * never removed. If another program removes or replaces it meanwhile, the lock is taken on the new file.
 * @throws CniError 11 on timeout; 5 when the path is no regular file; the fs error when it cannot be opened
 */
export function withFileLock<T>(file: string, options: FileLockOptions, work: () => T): T {
  const fd = lockWithin(file, options);
  try {
    return work();
  } finally {
    closeSync(fd);
  }
}

/**
 * As {@link withFileLock} without waiting.
 * @returns undefined when another process has the lock: `work` was not called
 */
export function withFreeFileLock<T>(file: string, options: FileLockOptions, work: () => T): T | undefined {
  const fd = tryToLock(file, options);
  if (fd === undefined) return undefined;
  try {
    return work();
  } finally {
    closeSync(fd);
  }
}

const OWN_FILE: FileLockOptions = { mode: 0o600, removed: true };
/** sys/file.h */
const LOCK_EX = 2;
const LOCK_NB = 4;
/** O_RDONLY|O_CREAT|O_NONBLOCK|O_CLOEXEC: a child process must not keep the lock, and a FIFO must not block the call. */
const OPEN_FLAGS = constants.O_CREAT | constants.O_NONBLOCK | 0o2000000;
/** Polled: a blocking flock(2) could only be interrupted by a signal. */
const FIRST_PAUSE_MS = 0.5;
const LONGEST_PAUSE_MS = 10;

function withOwnFile<T>(file: string, work: () => T): T {
  const fd = lockWithin(file, OWN_FILE);
  try {
    return work();
  } finally {
    removeAndRelease(file, fd);
  }
}

/**
 * Removes the file while it is locked: a process that waits for it finds another file at the path then, and begins again. If it cannot be
 * removed, the next holder uses it again: what was done under the lock has not failed.
 */
function removeAndRelease(file: string, fd: number): void {
  try {
    if (leadsTo(fstatSync(fd), file)) unlinkSync(file);
  } catch {
    // As a file that a killed process left; GC removes it.
  } finally {
    closeSync(fd);
  }
}

function lockWithin(file: string, options: FileLockOptions): number {
  const first = deadlineIn(options.timeoutMs);
  let wait = first;
  let inode: number | undefined;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
    const fd = tryToLock(file, options);
    if (fd !== undefined) return fd;
    const inodeNow = statSync(file, { throwIfNoEntry: false })?.ino;
    if (options.removed === true && inode !== undefined && inodeNow !== inode) wait = restartInQueue(first);
    inode = inodeNow;
    if (wait.passed()) throw timeoutError(`waiting for lock ${file}`, first, { holder: holderOf(file) });
    sleep(Math.min(pauseMs, Math.max(wait.remainingMs(), 0)));
  }
}

/** @returns the descriptor that holds the lock; undefined when another process has it */
function tryToLock(file: string, options: FileLockOptions): number | undefined {
  const fd = openLockFile(file, options);
  let locked = false;
  try {
    const opened = fstatSync(fd);
    requireRegular(file, opened);
    locked = flock(fd, file) && leadsTo(opened, file);
    return locked ? fd : undefined;
  } finally {
    if (!locked) closeSync(fd);
  }
}

function openLockFile(file: string, { mode = 0o600, followLinks = false }: FileLockOptions): number {
  try {
    return openSync(file, OPEN_FLAGS | (followLinks ? 0 : constants.O_NOFOLLOW), mode);
  } catch (thrown) {
    const type = isErrno(thrown, 'EISDIR') ? 'directory' : 'symbolic link';
    if (type === 'symbolic link' && (followLinks || !isErrno(thrown, 'ELOOP'))) throw thrown;
    throw new CniError(CniCode.IoFailure, `${file}: not a regular file (${type})`, { cause: thrown });
  }
}

function flock(fd: number, file: string): boolean {
  try {
    checked(`flock(${file})`, libc().flock(fd, LOCK_EX | LOCK_NB));
    return true;
  } catch (thrown) {
    if (isErrno(thrown, 'EAGAIN', 'EINTR')) return false;
    throw thrown;
  }
}

/** Whether the path still leads to the locked file: operators remove lease directories, and holders of our locks remove their files. */
function leadsTo({ dev, ino }: Stats, file: string): boolean {
  const now = statSync(file, { throwIfNoEntry: false });
  return now?.dev === dev && now.ino === ino;
}

/** @returns undefined where our own lock files cannot be created, or others could replace them */
function lockDirectory(): string | undefined {
  try {
    const found =
      lstatSync(LOCK_DIRECTORY, { throwIfNoEntry: false }) ??
      createDirectories(['/run/weft', LOCK_DIRECTORY]);
    if (!found.isDirectory() || found.uid !== process.geteuid?.()) return undefined;
    if ((found.mode & 0o077) !== 0) chmodSync(LOCK_DIRECTORY, 0o700);
    return LOCK_DIRECTORY;
  } catch (thrown) {
    if (isErrno(thrown, 'EACCES', 'EPERM', 'EROFS', 'ENOENT', 'ENOTDIR', 'ENOSPC', 'ELOOP')) return undefined;
    throw thrown;
  }
}

/** @returns the last one */
function createDirectories(paths: readonly [string, string]): Stats {
  const [parent, directory] = paths;
  create(parent, 0o755);
  const { uid, mode } = lstatSync(parent);
  // A parent that others can write to lets them replace the directory.
  if (uid === process.geteuid?.() && (mode & 0o022) === 0) create(directory, 0o700);
  return lstatSync(directory);
}

function create(directory: string, mode: number): void {
  try {
    mkdirSync(directory, { mode });
  } catch (thrown) {
    if (!isErrno(thrown, 'EEXIST')) throw thrown;
  }
}

/**
 * The process that holds a flock on this file, for an error: `process 4711 (iptables-restore)`.
 * /proc/locks: `1: FLOCK  ADVISORY  WRITE 4711 00:1a:1234 0 EOF`: process, major and minor device in hexadecimal, inode. Waiting processes
 * have `->` behind the number.
 * @returns undefined when /proc does not say
 */
function holderOf(file: string): string | undefined {
  try {
    const { dev, ino } = statSync(file);
    const hex = (value: number): string => value.toString(16).padStart(2, '0');
    const major = (dev >>> 8) & 0xfff;
    const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
    const line = new RegExp(`^\\d+: FLOCK .* (\\d+) ${hex(major)}:${hex(minor)}:${ino} `, 'm');
    const pid = line.exec(readFileSync('/proc/locks', 'latin1'))?.[1];
    return pid === undefined || pid === '0' ? undefined : `process ${pid} (${programName(pid)})`;
  } catch {
    return undefined;
  }
}

/** Of the executable, which a process cannot choose; of its main thread where that is not readable. */
function programName(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/exe`).replace(/^.*\//, '');
  } catch {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  }
}
