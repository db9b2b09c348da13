import { closeSync, mkdirSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { checked, libc } from '../../shared/kernel/libc.ts';
import { inScratchNamespace } from '../../shared/kernel/namespace.ts';

/** linux/mount.h */
const MS_BIND = 4096;
const MNT_DETACH = 2;

/** As `ip netns add`, without a process; after the first one of `ip`, which lets mounts below /run/netns propagate. */
export function addNetns(name: string): void {
  const path = `/run/netns/${name}`;
  mkdirSync('/run/netns', { recursive: true });
  closeSync(openSync(path, 'wx', 0o444));
  inScratchNamespace(() => {
    // A new namespace inherits the machine's setting.
    writeFileSync('/proc/sys/net/ipv4/ip_forward', '0');
    checked(`mount(${path})`, libc().mount('/proc/thread-self/ns/net', path, 'none', MS_BIND));
  });
}

/** As `ip netns del`. */
export function deleteNetns(name: string): void {
  const path = `/run/netns/${name}`;
  checked(`umount(${path})`, libc().umount2(path, MNT_DETACH));
  rmSync(path);
}
