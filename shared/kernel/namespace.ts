import { closeSync, constants, openSync, statSync, statfsSync, writeSync } from 'node:fs';
import { CniCode, CniError } from '../cni/errors.ts';
import { isErrno } from './errno.ts';
import { checked, exitNow, libc } from './libc.ts';

/** An open network namespace. Closing it does not end the namespace. Usable with `using`. */
export interface NetworkNamespace {
  readonly fd: number;
  readonly path: string;
  close(): void;
  [Symbol.dispose](): void;
}

/** What is at a path that should be a network namespace. */
export type NamespaceLookup =
  | { readonly is: 'open'; readonly namespace: NetworkNamespace }
  | { readonly is: 'absent' }
  /** A file, a directory, the file below an unmounted namespace, a namespace of another kind. */
  | { readonly is: 'not a network namespace'; readonly problem: string; readonly cause?: unknown };

/**
 * Opens a network namespace if there is one. For DEL, `absent` and `not a network namespace` both mean that the container's namespace is
 * gone, and its interfaces with it.
 * @throws CniError 8 when the path cannot be opened for another reason (permissions)
 */
export function findNamespace(path: string): NamespaceLookup {
  let fd: number;
  try {
    const found = statSync(located(path), { throwIfNoEntry: false });
    if (found === undefined) return { is: 'absent' };
    // Opening a FIFO may block, and opening a device may have effects. A namespace is a regular file of the file system nsfs.
    if (!found.isFile()) return notNamespace(`"${path}" is no regular file`);
    fd = openSync(located(path), OPEN_FLAGS);
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT', 'ENOTDIR', 'ESRCH')) return { is: 'absent' };
    const problem = thrown instanceof Error ? thrown.message : String(thrown);
    if (isErrno(thrown, 'ENXIO', 'ELOOP', 'ENODEV', 'ENAMETOOLONG')) return notNamespace(problem, thrown);
    throw invalidNamespace(path, problem, thrown);
  }
  const problem = whyNotNetworkNamespace(fd, path);
  if (problem === undefined) return { is: 'open', namespace: namespaceOf(fd, path) };
  closeSync(fd);
  return notNamespace(problem);
}

/**
 * Opens the network namespace that the runtime names (CNI_NETNS).
 * @throws CniError 8 when the path is missing or is no network namespace (texts of the reference)
 */
export function openNamespace(path: string): NetworkNamespace {
  const found = findNamespace(path);
  if (found.is === 'open') return found.namespace;
  if (found.is === 'absent') {
    throw invalidNamespace(path, `failed to Statfs "${path}": no such file or directory`);
  }
  throw invalidNamespace(path, found.problem, found.cause);
}

/** Whether there is a network namespace at this path. @throws CniError 8 as {@link findNamespace} */
export function isNetworkNamespace(path: string): boolean {
  const found = findNamespace(path);
  if (found.is === 'open') found.namespace.close();
  return found.is === 'open';
}

/** The namespace that this process is in right now. */
export function openOwnNamespace(): NetworkNamespace {
  return namespaceOf(openSync(OWN, 'r'), OWN);
}

/** Whether this path is the very namespace that this process is in (by device and inode); false when there is nothing at the path. */
export function isOwnNamespace(path: string): boolean {
  return isSameNamespace(path, OWN);
}

/** Whether two paths are one namespace (by device and inode): /var/run is a link to /run. */
export function isSameNamespace(one: string, other: string): boolean {
  const [a, b] = [one, other].map((path) => statSync(located(path), { bigint: true, throwIfNoEntry: false }));
  return a !== undefined && b !== undefined && a.dev === b.dev && a.ino === b.ino;
}

/**
 * Runs `work` with a namespace that the caller has opened (O_PATH is enough): wherever `path` is opened, the descriptor takes its place.
 * The node agent may be in another mount namespace than its caller, where the path leads to nothing, or to something else.
 */
export function withOpenedNamespace<T>(path: string, fd: number, work: () => T): T {
  opened = { path, fd };
  try {
    return work();
  } finally {
    opened = undefined;
  }
}

let opened: { readonly path: string; readonly fd: number } | undefined;

function located(path: string): string {
  return opened?.path === path ? `/proc/self/fd/${opened.fd}` : path;
}

/**
 * Runs `work` inside a network namespace and returns to the one it was called from, also when `work` throws.
 * Only this thread moves: `work` must be synchronous and use synchronous fs calls; child processes inherit the namespace.
 * Netlink sockets opened inside stay bound to it, which is often all that is needed (see Rtnetlink.openIn).
 * A process that cannot return prints why and ends with status 1.
 */
export function inNamespace<T>(namespace: string | NetworkNamespace, work: () => T): T {
  const given = typeof namespace === 'string' ? undefined : namespace;
  const target = given ?? openNamespace(namespace as string);
  try {
    using original = openOwnNamespace();
    enter(target);
    return runThenReturn(original, work);
  } finally {
    if (given === undefined) target.close();
  }
}

/**
 * Runs `work` in a new network namespace, which has only a loopback interface and ends afterwards: to find out what the kernel supports
 * by doing it. Returns as {@link inNamespace} does.
 */
export function inScratchNamespace<T>(work: () => T): T {
  using original = openOwnNamespace();
  checked('unshare(CLONE_NEWNET)', libc().unshare(CLONE_NEWNET), 'CAP_SYS_ADMIN');
  return runThenReturn(original, work);
}

/** Of the thread that node runs JavaScript on, which is the only one that setns moves. */
const OWN = '/proc/self/ns/net';
/** O_RDONLY|O_NONBLOCK|O_CLOEXEC */
const OPEN_FLAGS = constants.O_NONBLOCK | 0o2000000;
/** linux/sched.h */
const CLONE_NEWNET = 0x40000000;
/** linux/nsfs.h: _IO(0xb7, 0x3), answers with the CLONE_NEW* flag of the namespace. */
const NS_GET_NSTYPE = 0xb703;
/** linux/magic.h NSFS_MAGIC */
const NSFS_MAGIC = 0x6e736673;

function notNamespace(problem: string, cause?: unknown): NamespaceLookup {
  return { is: 'not a network namespace', problem, cause };
}

function whyNotNetworkNamespace(fd: number, path: string): string | undefined {
  // node:fs has no fstatfs; the descriptor's entry in /proc is the same file even if the path has changed since.
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

/** Runs `work` in the thread's present namespace, then moves the thread to `original`. */
function runThenReturn<T>(original: NetworkNamespace, work: () => T): T {
  try {
    const result = work();
    if (result instanceof Promise) throw new TypeError('work inside a namespace must be synchronous');
    return result;
  } finally {
    try {
      enter(original);
    } catch (thrown) {
      writeSync(2, `cannot return to the host's network namespace, stopping: ${String(thrown)}\n`);
      exitNow(1);
    }
  }
}

function enter(namespace: NetworkNamespace): void {
  checked(`setns(${namespace.path})`, libc().setns(namespace.fd, CLONE_NEWNET), 'CAP_SYS_ADMIN');
}
