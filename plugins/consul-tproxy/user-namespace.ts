import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { readKernelFile } from '../../shared/kernel/files.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { checked, libc } from '../../shared/kernel/libc.ts';
import type { UidRange } from './request.ts';

/** The user namespace that owns a network namespace: rules match the uids of that one. */
export interface Owner {
  readonly fd: number;
  /** Whether this process is in it. */
  readonly isOwn: boolean;
  /** Whether the process `pid` is in it. */
  has(pid: number): boolean;
}

/** Runs `work` with the owner of the network namespace that this thread is in; the descriptor is open while it runs. */
export function withOwner<T>(work: (owner: Owner) => T): T {
  const networkNamespace = openSync('/proc/thread-self/ns/net', 'r');
  try {
    const fd = checked('ioctl(NS_GET_USERNS)', libc().ioctl(networkNamespace, NS_GET_USERNS));
    try {
      const { dev, ino } = fstatSync(fd);
      const has = (pid: number | 'self'): boolean => {
        const found = statSync(`/proc/${pid}/ns/user`);
        return found.dev === dev && found.ino === ino;
      };
      return work({ fd, isOwn: has('self'), has });
    } finally {
      closeSync(fd);
    }
  } finally {
    closeSync(networkNamespace);
  }
}

/**
 * The kernel refuses rules for a uid that the user namespace of the network namespace does not map (xt_owner: EINVAL), and no process there can
 * have it. Only the own user namespace's map can be read before a process is in it.
 * @throws CniError 7
 */
export function requireMappedUid({ first, last }: UidRange): void {
  if (!withOwner(({ isOwn }) => isOwn)) return;
  const map = readKernelFile('/proc/self/uid_map').trim();
  const isMapped = map.split('\n').some((line) => {
    const [inside = 0, , count = 0] = line.trim().split(/\s+/).map(Number);
    return first >= inside && last < inside + count;
  });
  if (isMapped) return;
  const uid = first === last ? `uid ${first}` : `uids ${first} to ${last}`;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `this user namespace does not map the proxy's ${uid}, so no process can be the proxy`,
    {
      details: `/proc/self/uid_map (first inside, first outside, count): ${map.replaceAll(/\s+/g, ' ')}; map the uid, or set transparent_proxy.uid to one that is mapped`,
    },
  );
}

/** linux/nsfs.h: _IO(0xb7, 0x1), returns a descriptor of the user namespace that owns this namespace. */
const NS_GET_USERNS = 0xb701;
