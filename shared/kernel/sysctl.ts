import { writeFileSync } from 'node:fs';
import { trace } from '../process/trace.ts';
import { isErrno, KernelError } from './errno.ts';
import { readKernelFile } from './files.ts';

/**
 * Reads a kernel parameter of the calling thread's network namespace (see inNamespace).
 * @param path with slashes, because interface names may contain dots: `net/ipv4/conf/eth0/arp_notify`
 * @returns its value without the trailing newline
 * @throws the fs error, ENOENT where the kernel or the interface lacks it (e.g. no IPv6)
 */
export function readSysctl(path: string): string {
  return readKernelFile(fileOf(path)).trim();
}

/** Whether a kernel parameter is 1; false also where the kernel lacks it. @param path see {@link readSysctl} */
export function isSysctlOn(path: string): boolean {
  try {
    return readSysctl(path) === '1';
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT')) return false;
    throw thrown;
  }
}

/**
 * Sets a kernel parameter unless it already has the value. A write may have side effects (net/ipv6/conf/all/forwarding changes every
 * interface), and /proc/sys may be read-only.
 * @returns the previous value, for undo
 */
export function writeSysctl(path: string, value: string | number): string {
  const wanted = String(value);
  const previous = readSysctl(path);
  if (previous !== wanted) setSysctl(path, wanted);
  return previous;
}

/** Sets a kernel parameter only if its value is `from`. */
export function replaceSysctl(path: string, from: string, to: string): void {
  if (readSysctl(path) === from) setSysctl(path, to);
}

/**
 * Sets a kernel parameter that is known to have another value.
 * @throws KernelError EPERM without CAP_NET_ADMIN, otherwise the fs error (ENOENT, EROFS, EINVAL)
 */
export function setSysctl(path: string, wanted: string | number): void {
  const value = String(wanted);
  const file = fileOf(path);
  trace(() => `write ${file}: ${value}`);
  try {
    writeFileSync(file, value);
  } catch (thrown) {
    if (!isErrno(thrown, 'EACCES', 'EPERM')) throw thrown;
    throw new KernelError(`write ${file}`, 1, { capability: 'CAP_NET_ADMIN', cause: thrown });
  }
}

function fileOf(path: string): string {
  const parts = path.split('/');
  if (parts.some((part) => part === '' || part === '.' || part === '..' || part.includes('\0'))) {
    throw new TypeError(`sysctl path must be names joined by single slashes, got "${path}"`);
  }
  return `/proc/sys/${path}`;
}
