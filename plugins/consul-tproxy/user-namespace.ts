import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { checked, libc } from '../../shared/kernel/libc.ts';

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

/** linux/nsfs.h: _IO(0xb7, 0x1), returns a descriptor of the user namespace that owns this namespace. */
const NS_GET_USERNS = 0xb701;
