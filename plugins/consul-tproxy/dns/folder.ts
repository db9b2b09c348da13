import { closeSync, constants, fchmodSync, mkdirSync, openSync, rmdirSync } from 'node:fs';
import { isErrno } from '../../../shared/kernel/errno.ts';

/**
 * Runs `work` with the folder `base/names[0]/names[1]/…` opened step by step, none of the steps a symbolic link: root writes here,
 * and a link planted at a predictable name would send the write elsewhere. Node has no openat(2); /proc/self/fd/N/name is the same.
 * @param base trusted, e.g. /etc; may itself be a link
 * @param work gets a path that stays this very folder whatever happens to the names meanwhile
 * @throws the errors of open(2): ENOENT when a step is missing and not to be made, ENOTDIR when one is a link or a file
 */
export function inFolder<T>(
  base: string,
  names: readonly string[],
  create: boolean,
  work: (folder: string) => T,
): T {
  const fds = [openSync(base, constants.O_RDONLY | constants.O_DIRECTORY)];
  try {
    for (const name of names) fds.push(openStep(`/proc/self/fd/${fds.at(-1) ?? 0}/${name}`, create));
    return work(`/proc/self/fd/${fds.at(-1) ?? 0}`);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

/** Removes a folder if it is empty; one that is not, or is gone, is left as it is. */
export function removeIfEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch (thrown) {
    if (!isErrno(thrown, 'ENOENT', 'ENOTEMPTY', 'EEXIST', 'ENOTDIR', 'EBUSY')) throw thrown;
  }
}

const STEP = constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW;

function openStep(path: string, create: boolean): number {
  const made = create && make(path);
  const fd = openSync(path, STEP);
  // Whatever umask the runtime has: programs inside the namespace are no root and read here.
  if (made) fchmodSync(fd, 0o755);
  return fd;
}

function make(path: string): boolean {
  try {
    mkdirSync(path);
    return true;
  } catch (thrown) {
    if (isErrno(thrown, 'EEXIST')) return false;
    throw thrown;
  }
}
