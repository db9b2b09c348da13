import { trace } from '../process/trace.ts';
import { closeSync, fsyncSync, lstatSync, openSync, rmSync, writeSync } from 'node:fs';
import { dirname, basename } from 'node:path';
import { CniCode, CniError } from '../cni/errors.ts';
import { TEMPORARY_NAME } from '../attachments/lease-files.ts';

/**
 * Puts a file with this text into a store, whole or not at all: written under a temporary name, brought to disk, and only
 * then given its name. Not even a power cut leaves an empty lease, which would block its address for ever.
 * The store's lock is held, so the temporary name has one user; {@link removeLeftovers} has freed it.
 * @param moveIntoPlace link(2) or rename(2) from the temporary name; EEXIST from it is the answer "taken"
 * @returns false when the name is taken
 */
export function placeFile(store: string, text: string, moveIntoPlace: (temporary: string) => void): boolean {
  for (const temporary of temporariesOf(store)) {
    try {
      writeWhole(temporary, text);
      return isDone(() => moveIntoPlace(temporary));
    } catch (thrown) {
      if (codeOf(thrown) !== 'EXDEV') throw thrown;
    } finally {
      removeIfPossible(temporary);
    }
  }
  throw new CniError(
    CniCode.IoFailure,
    `no file can be put into ${store}: neither from beside nor from inside`,
  );
}

/** What a call that was killed while it placed a file has left. Under the lock nobody else is placing one. */
export function removeLeftovers(store: string): void {
  for (const temporary of temporariesOf(store)) {
    if (lstatSync(temporary, { throwIfNoEntry: false }) !== undefined) rmSync(temporary, { force: true });
  }
}

/** The file is in its place by now, or its error is on the way: what stays here is a leftover for the next call to remove. */
function removeIfPossible(temporary: string): void {
  try {
    rmSync(temporary, { force: true });
  } catch {
    // removeLeftovers tells if it still cannot be done.
  }
}

/** Beside the store, where the reference does not look; inside, where that is another file system. */
function temporariesOf(store: string): string[] {
  return [`${dirname(store)}/.weft-${basename(store)}.tmp`, `${store}/${TEMPORARY_NAME}`];
}

/** @returns false when the name is taken */
function isDone(move: () => void): boolean {
  try {
    move();
    return true;
  } catch (thrown) {
    if (codeOf(thrown) === 'EEXIST') return false;
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
 * Never over an existing file: it may be the very one that became a lease, when the removal of its temporary name was refused or the
 * writer killed before it. That name goes now; taken for the lease's, it would tell of an address that is free.
 */
function createAnew(file: string): number {
  try {
    return openSync(file, 'wx', 0o600);
  } catch (thrown) {
    if (codeOf(thrown) !== 'EEXIST') throw thrown;
    rmSync(file, { force: true });
    return openSync(file, 'wx', 0o600);
  }
}

function codeOf(thrown: unknown): string | undefined {
  return (thrown as NodeJS.ErrnoException).code;
}
