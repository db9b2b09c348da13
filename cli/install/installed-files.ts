import { createHash } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  copyFileSync,
  fsyncSync,
  linkSync,
  lstatSync,
  openSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { isErrno } from '../../shared/kernel/errno.ts';

/** What is at a path: the SHA-256 of a regular file, or `link:TARGET` of a symbolic link. */
export type Digest = string;

/** @returns undefined when nothing is at the path @throws CniError 5 when it is neither a regular file nor a symbolic link */
export function digestAt(path: string): Digest | undefined {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return undefined;
  if (found.isSymbolicLink()) return `link:${readlinkSync(path)}`;
  if (found.isFile()) return sha256(path);
  throw new CniError(CniCode.IoFailure, `${path} is neither a regular file nor a symbolic link`, {
    details: 'move it away, or choose another directory with --bin-dir',
  });
}

/** Follows symbolic links, `/proc/self/exe` too. */
export function sha256(path: string): string {
  const { dev, ino, size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
  const key = `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`;
  const digest = digests.get(key) ?? hashFile(path);
  digests.set(key, digest);
  return digest;
}

/** Seven names of one file are read once. */
const digests = new Map<string, string>();

function hashFile(path: string): string {
  const hash = createHash('sha256');
  const fd = openSync(path, 'r');
  try {
    const chunk = Buffer.allocUnsafe(2 ** 20);
    for (let length = readSync(fd, chunk); length > 0; length = readSync(fd, chunk))
      hash.update(chunk.subarray(0, length));
  } finally {
    closeSync(fd);
  }
  return hash.digest('hex');
}

/** Puts a file in place in one step: a program that opens the path gets the old file or the new one. @param temporary consumed */
export function putInPlace(temporary: string, path: string): void {
  renameSync(temporary, path);
  // rename(2) does nothing when both are names of one file.
  rmSync(temporary, { force: true });
  sync(dirname(path));
}

/** Another name of the same file; a copy where that is impossible (another file system). Symbolic links are not followed. */
export function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (thrown) {
    if (!isErrno(thrown, 'EXDEV', 'EPERM', 'EMLINK', 'ENOTSUP', 'EOPNOTSUPP')) throw thrown;
    copyWithAttributes(from, to);
  }
}

/** The contents reach the disk before this returns. */
export function copy(from: string, to: string, mode = 0o755): void {
  copyFileSync(from, to, constants.COPYFILE_FICLONE);
  chmodSync(to, mode);
  sync(to);
}

function copyWithAttributes(from: string, to: string): void {
  const { mode, uid, gid, atime, mtime } = lstatSync(from);
  const digest = digestAt(from);
  if (digest?.startsWith('link:') === true) {
    symlinkSync(digest.slice('link:'.length), to);
    return;
  }
  copy(from, to);
  chownSync(to, uid, gid);
  chmodSync(to, mode & 0o7777);
  utimesSync(to, atime, mtime);
  sync(to);
}

/** Of a file or a directory. */
export function sync(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}
