import { closeSync, openSync, statSync, statfsSync, writeSync, type BigIntStats } from 'node:fs';
import { CniCode, CniError } from '../cni/errors.ts';
import { checked, exitNow, isErrno, libc } from './libc.ts';

/** An open network namespace. Closing it does not end the namespace. Usable with `using`. */
export interface NetworkNamespace {
  readonly fd: number;
  readonly path: string;
  close(): void;
  [Symbol.dispose](): void;
}

/**
 * Opens the network namespace that the runtime names (CNI_NETNS).
 * @throws CniError 8 when the path is missing or is no network namespace (texts of the reference)
 */
export function openNamespace(path: string): NetworkNamespace {
  const fd = openFile(path);
  const problem = whyNotNetworkNamespace(fd, path);
  if (problem === undefined) return namespaceOf(fd, path);
  closeSync(fd);
  throw invalidNamespace(path, problem);
}

/** The namespace that this process is in right now. */
export function openOwnNamespace(): NetworkNamespace {
  return namespaceOf(openSync(OWN, 'r'), OWN);
}

/**
 * Runs `work` inside a network namespace and comes back to the one it was called from, also when `work` throws.
 * Only this thread moves: `work` must be synchronous and use synchronous fs calls; child processes inherit the namespace.
 * Netlink sockets opened inside stay bound to it, which is often all that is needed (see Rtnetlink.openIn).
 * A process that cannot come back must not go on: it prints why and ends with status 1.
 */
export function inNamespace<T>(namespace: string | NetworkNamespace, work: () => T): T {
  const given = typeof namespace === 'string' ? undefined : namespace;
  const target = given ?? openNamespace(namespace as string);
  try {
    const home = openOwnNamespace();
    try {
      enter(target);
      return runThenReturn(home, work);
    } finally {
      home.close();
    }
  } finally {
    if (given === undefined) target.close();
  }
}

/** What is at this path: a network namespace, nothing, or something else (a leftover file, a namespace of another kind). */
export function namespaceState(path: string): 'present' | 'missing' | 'foreign' {
  let fd: number;
  try {
    fd = openSync(path, OPEN_WITHOUT_WAITING);
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT', 'ENOTDIR')) return 'missing';
    if (isErrno(thrown, 'ENXIO', 'EISDIR', 'ELOOP', 'ENODEV')) return 'foreign';
    throw thrown;
  }
  try {
    return whyNotNetworkNamespace(fd, path) === undefined ? 'present' : 'foreign';
  } finally {
    closeSync(fd);
  }
}

/** Whether this path is the very namespace that this process is in (by device and inode); false when it is missing. */
export function isOwnNamespace(path: string): boolean {
  const there = statSync(path, { bigint: true, throwIfNoEntry: false });
  return there !== undefined && sameFile(there, statSync(OWN, { bigint: true }));
}

/** Of the thread that node runs JavaScript on, which is the only one that setns moves. */
const OWN = '/proc/self/ns/net';
/** O_RDONLY|O_NONBLOCK|O_CLOEXEC: a FIFO left at the path of a namespace must not hang a plugin that holds Nomad's lock. */
const OPEN_WITHOUT_WAITING = 0o2004000;
/** linux/sched.h */
const CLONE_NEWNET = 0x40000000;
/** linux/nsfs.h: _IO(0xb7, 0x3), answers with the CLONE_NEW* flag of the namespace. */
const NS_GET_NSTYPE = 0xb703;
/** linux/magic.h NSFS_MAGIC */
const NSFS_MAGIC = 0x6e736673;

function openFile(path: string): number {
  try {
    return openSync(path, OPEN_WITHOUT_WAITING);
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT', 'ENOTDIR')) {
      throw invalidNamespace(path, `failed to Statfs "${path}": no such file or directory`, thrown);
    }
    throw invalidNamespace(path, thrown instanceof Error ? thrown.message : String(thrown), thrown);
  }
}

function whyNotNetworkNamespace(fd: number, path: string): string | undefined {
  // Not the descriptor's own statfs, which node:fs lacks, but its entry in /proc: the same file even if the path changed since.
  const magic = statfsSync(`/proc/self/fd/${fd}`).type;
  if (magic !== NSFS_MAGIC) return `unknown FS magic on "${path}": ${magic.toString(16)}`;
  const kind = checked('ioctl(NS_GET_NSTYPE)', libc().ioctl(fd, NS_GET_NSTYPE));
  return kind === CLONE_NEWNET ? undefined : `"${path}" is a namespace, but not a network namespace`;
}

function invalidNamespace(path: string, problem: string, cause?: unknown): CniError {
  return new CniError(CniCode.InvalidNetworkNamespace, `failed to open netns "${path}": ${problem}`, {
    ...(cause === undefined ? {} : { cause }),
  });
}

function namespaceOf(fd: number, path: string): NetworkNamespace {
  let open = true;
  const close = (): void => {
    if (open) closeSync(fd);
    open = false;
  };
  return { fd, path, close, [Symbol.dispose]: close };
}

/**
 * Runs `work` where the thread is now, then moves it to `home`; for {@link inNamespace} and those that leave home another way.
 * A process that cannot come back ends.
 */
export function runThenReturn<T>(home: NetworkNamespace, work: () => T): T {
  try {
    const result = work();
    if (result instanceof Promise) throw new TypeError('work inside a namespace must be synchronous');
    return result;
  } finally {
    try {
      enter(home);
    } catch (thrown) {
      writeSync(2, `cannot return to the host's network namespace, stopping: ${String(thrown)}\n`);
      exitNow(1);
    }
  }
}

function enter(namespace: NetworkNamespace): void {
  checked(`setns(${namespace.path})`, libc().setns(namespace.fd, CLONE_NEWNET));
}

function sameFile(one: BigIntStats, other: BigIntStats): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}
