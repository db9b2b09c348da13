import { readdirSync, readFileSync, statSync } from 'node:fs';
import { isErrno } from '../kernel/errno.ts';
import { addresses } from '../kernel/rtnetlink/addresses.ts';
import { Rtnetlink } from '../kernel/rtnetlink/rtnetlink.ts';
import { withoutPrefixLength } from '../net/address.ts';

export interface AddressesInUse {
  /** Address without prefix length -> paths of the network namespaces that have it, one for each namespace. */
  readonly byAddress: ReadonlyMap<string, readonly string[]>;
  /** False if a namespace exists that this process may not enter: an address that was not found may still be in use. */
  readonly isComplete: boolean;
}

/**
 * The addresses of every network namespace of this host that has a name, a bind mount or a process. One netlink dump per
 * namespace: for decisions about containers that may be dead, not for every call.
 */
export function addressesInUse(): AddressesInUse {
  const byAddress = new Map<string, string[]>();
  const { paths, isComplete } = visibleNamespaces();
  let isEachReadable = true;
  for (const path of paths) {
    const found = addressesOf(path);
    if (found === undefined) isEachReadable = false;
    else
      for (const address of new Set(found)) byAddress.set(address, [...(byAddress.get(address) ?? []), path]);
  }
  return { byAddress, isComplete: isComplete && isEachReadable };
}

/** Folders in which runtimes bind-mount namespaces under a name. */
const NAMED = ['/run/netns', '/var/run/netns', '/run/docker/netns', '/var/run/docker/netns'];

/** One path per namespace. */
function visibleNamespaces(): { paths: string[]; isComplete: boolean } {
  const byIdentity = new Map<string, string>();
  let isComplete = true;
  /** @returns whether the file was not seen before */
  const add = (path: string, seen: Map<string, string>): boolean => {
    try {
      const { dev, ino } = statSync(path, { bigint: true });
      const identity = `${dev}:${ino}`;
      if (seen.has(identity)) return false;
      seen.set(identity, path);
      return true;
    } catch (thrown) {
      // Otherwise the process or the namespace ended meanwhile.
      if (isForbidden(thrown)) isComplete = false;
      return false;
    }
  };
  for (const path of NAMED.flatMap(entriesOf)) add(path, byIdentity);
  const mountNamespaces = new Map<string, string>();
  for (const pid of ['self', ...listFolder('/proc').filter((name) => /^\d+$/.test(name))]) {
    add(`/proc/${pid}/ns/net`, byIdentity);
    if (!add(`/proc/${pid}/ns/mnt`, mountNamespaces)) continue;
    for (const path of mountedNamespaces(pid)) add(path, byIdentity);
  }
  return { paths: [...byIdentity.values()], isComplete };
}

/**
 * Network namespaces that are bind-mounted in the mount namespace of a process, where runtimes of other users keep theirs.
 * proc_pid_mountinfo(5): field 4 is `net:[inode]`, field 5 the mount point.
 */
function mountedNamespaces(pid: string): string[] {
  try {
    const text = readFileSync(`/proc/${pid}/mountinfo`, 'utf8');
    return [...text.matchAll(/^\d+ \d+ \S+ net:\[\d+\] (\S+) /gm)].map(([, point = '']) => {
      const path = point.replace(/\\([0-7]{3})/g, (_, octal: string) =>
        String.fromCharCode(Number.parseInt(octal, 8)),
      );
      return pid === 'self' ? path : `/proc/${pid}/root${path}`;
    });
  } catch {
    return [];
  }
}

function entriesOf(folder: string): string[] {
  return listFolder(folder).map((name) => `${folder}/${name}`);
}

/** The addresses of a namespace, without prefix length. Undefined if this process lacks the permission; none if the namespace ended meanwhile or the path is none. */
export function addressesOf(path: string): string[] | undefined {
  try {
    using rtnetlink = Rtnetlink.openIn(path);
    return addresses(rtnetlink).map(({ address }) => withoutPrefixLength(address));
  } catch (thrown) {
    return isForbidden(thrown) ? undefined : [];
  }
}

export interface NamespaceIdentity {
  readonly dev: number;
  readonly ino: number;
}

/** Identity of the namespace at a path; undefined if there is none. One system call: nsfs is one file system of its own on a host. */
export function namespaceAt(path: string, nsfs: number): NamespaceIdentity | undefined | 'unreadable' {
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    return found?.dev === nsfs ? { dev: found.dev, ino: found.ino } : undefined;
  } catch {
    return 'unreadable';
  }
}

function isForbidden(thrown: unknown): boolean {
  return isErrno(thrown, 'EPERM', 'EACCES') || (thrown instanceof Error && isForbidden(thrown.cause));
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
