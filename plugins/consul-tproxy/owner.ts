import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { checked, libc } from '../../shared/kernel/libc.ts';

/** The user namespace that owns a network namespace: rules about users go by its uids. */
export interface Owner {
  readonly fd: number;
  /** Whether it is the one that this process is in. */
  readonly isOurs: boolean;
  /** Whether a process is in it. */
  has(pid: number): boolean;
}

/** Runs `work` with the owner of the network namespace that this thread is in; the descriptor holds while it runs. */
export function withOwner<T>(work: (owner: Owner) => T): T {
  const own = openSync('/proc/thread-self/ns/net', 'r');
  try {
    const fd = checked('ioctl(NS_GET_USERNS)', libc().ioctl(own, NS_GET_USERNS));
    try {
      const { dev, ino } = fstatSync(fd);
      const has = (pid: number | 'self'): boolean => {
        const found = statSync(`/proc/${pid}/ns/user`);
        return found.dev === dev && found.ino === ino;
      };
      return work({ fd, isOurs: has('self'), has });
    } finally {
      closeSync(fd);
    }
  } finally {
    closeSync(own);
  }
}

/** linux/nsfs.h: _IO(0xb7, 0x1), answers with a descriptor of the user namespace that owns this namespace. */
const NS_GET_USERNS = 0xb701;
