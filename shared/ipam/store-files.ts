import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeSync,
  type Stats,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { CniCode, CniError } from '../cni/errors.ts';
import { TEMPORARY_NAME } from '../attachments/lease-files.ts';
import { isErrno } from '../kernel/errno.ts';
import { openRegularFile } from '../kernel/files.ts';
import { withLock } from '../kernel/locks.ts';
import { trace } from '../process/trace.ts';

/*
 * Writing the files of a lease store (docs/on-disk.md). No link is followed, and whatever stands at a file's path, it neither blocks
 * nor is it written to unless it is a regular file.
 */

/**
 * Puts a file with this text into a store, whole or not at all: writes it under a temporary name, syncs it to disk, and only then gives
 * it its name. So not even a power cut leaves an empty lease, which would block its address forever.
 * The store's lock is held, so only this call uses the temporary name.
 * @param move link(2) or rename(2) from the temporary name
 * @returns false if the name is taken (EEXIST from `move`)
 */
export function placeFile(store: string, text: string, move: (temporary: string) => void): boolean {
  let obstacle: unknown;
  for (const temporary of temporariesOf(store)) {
    try {
      writeWhole(temporary, text);
      return isMoved(() => move(temporary));
    } catch (thrown) {
      // Another file system, or a folder at the temporary name that cannot be removed: the other name may do.
      if (!isErrno(thrown, 'EXDEV', 'EISDIR', 'ENOTEMPTY', 'EBUSY')) throw thrown;
      obstacle = thrown;
    } finally {
      removeIfPossible(temporary);
    }
  }
  const [beside, inside] = temporariesOf(store);
  throw new CniError(CniCode.IoFailure, `cannot write into the lease store ${store}`, {
    details: `neither ${beside} nor ${inside} can be used for a temporary file; remove what is there`,
    cause: obstacle,
  });
}

/** Removes the temporary files of a call that was killed while it placed a file. */
export function removeLeftovers(store: string): void {
  for (const temporary of temporariesOf(store)) {
    if (lstatSync(temporary, { throwIfNoEntry: false }) !== undefined) removeIfPossible(temporary);
  }
}

/**
 * Writes a small text file of a store over in place: the text first, then the new length, so that it is never empty. Replaces a link, a
 * FIFO or a device at its path, and a file that has another name as well, instead of writing to it.
 */
export function overwriteFile(store: string, name: string, text: string): void {
  const path = `${store}/${name}`;
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat !== undefined && !isOrdinary(stat)) {
    placeFile(store, text, (temporary) => renameSync(temporary, path));
    return;
  }
  const fd = openRegularFile(path, constants.O_WRONLY, { followLinks: false }) ?? openSync(path, 'wx', 0o600);
  try {
    if (!isOrdinary(fstatSync(fd))) return;
    writeSync(fd, text, 0);
    ftruncateSync(fd, text.length);
  } finally {
    closeSync(fd);
  }
}

/**
 * Makes sure that `lock` of a store is a regular file or missing: a link, a FIFO, a device or a folder there would make every call
 * fail. The file has no contents, so replacing it loses nothing.
 */
export function repairLock(store: string, warn: (line: string) => void): void {
  const path = `${store}/lock`;
  const isUsable = (): boolean => lstatSync(path, { throwIfNoEntry: false })?.isFile() !== false;
  if (isUsable()) return;
  const { dev, ino } = statSync(store);
  // Two calls that repair at the same time must not remove each other's new lock file.
  withLock(`ipam-${dev}-${ino}`, () => {
    if (isUsable()) return;
    warn(`${path}: not a regular file; replaced`);
    if (lstatSync(path).isDirectory()) moveAway(path, `${dirname(store)}/.weft-${basename(store)}.lock`);
    else rmSync(path, { force: true });
    closeSync(openSync(path, 'wx', LOCK_MODE));
  });
}

/** The reference's mode of a store's `lock`. */
export const LOCK_MODE = 0o750;

function moveAway(folder: string, to: string): void {
  try {
    rmdirSync(folder);
  } catch (thrown) {
    if (!isErrno(thrown, 'ENOTEMPTY')) throw thrown;
    renameSync(folder, `${to}-${Date.now()}`);
  }
}

/** A regular file without another name. */
function isOrdinary(stat: Stats): boolean {
  return stat.isFile() && stat.nlink === 1;
}

/** The file has its name by now, or an error is on its way; the next call removes what stays here. */
function removeIfPossible(temporary: string): void {
  try {
    removeEntry(temporary);
  } catch {
    // The next write uses the other name, or reports it.
  }
}

function removeEntry(path: string): void {
  if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true) rmdirSync(path);
  else rmSync(path, { force: true });
}

/** Beside the store, where the reference does not look; inside, where that is another file system. */
function temporariesOf(store: string): [string, string] {
  return [`${dirname(store)}/.weft-${basename(store)}.tmp`, `${store}/${TEMPORARY_NAME}`];
}

/** @returns false if the name is taken */
function isMoved(move: () => void): boolean {
  try {
    move();
    return true;
  } catch (thrown) {
    if (isErrno(thrown, 'EEXIST')) return false;
    throw thrown;
  }
}

function writeWhole(file: string, text: string): void {
  trace(() => `write ${file}: ${JSON.stringify(text)}`);
  const fd = createAnew(file);
  try {
    writeSync(fd, text);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/**
 * Never writes into an existing file: it can be the lease itself, if the call that linked it was killed before it removed the temporary
 * name. That name is removed.
 */
function createAnew(file: string): number {
  try {
    return openSync(file, 'wx', 0o600);
  } catch (thrown) {
    if (!isErrno(thrown, 'EEXIST')) throw thrown;
    removeEntry(file);
    return openSync(file, 'wx', 0o600);
  }
}
