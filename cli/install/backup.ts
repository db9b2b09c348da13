import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { digestAt, linkOrCopy, putInPlace, sync, type Digest } from './installed-files.ts';
import type { Backup } from './installation.ts';

/** Saves what is at each path under its name in the backup's directory; the files stay where they are. */
export function save(directory: string, paths: readonly string[]): Record<string, boolean> {
  mkdirSync(directory, { recursive: true, mode: 0o755 });
  const saved = paths.map((path): [string, boolean] => {
    if (digestAt(path) === undefined) return [path, false];
    const temporary = `${savedAt(directory, path)}.new`;
    rmSync(temporary, { force: true });
    linkOrCopy(path, temporary);
    renameSync(temporary, savedAt(directory, path));
    rmSync(temporary, { force: true });
    return [path, true];
  });
  sync(directory);
  sync(dirname(directory));
  return Object.fromEntries(saved);
}

/**
 * Puts the saved files back, and removes ours where nothing was. May be repeated.
 * @param ours digests of the files that Weft installed: others at these paths were put there since, and stay
 * @param temporary where the file for a path is prepared, on its file system
 * @returns the paths that stay
 */
export function restore(
  backup: Backup,
  ours: Readonly<Record<string, Digest>>,
  temporary: (path: string) => string,
): string[] {
  const lost = Object.entries(backup.saved).filter(
    ([path, isSaved]) => isSaved && digestAt(savedAt(backup.directory, path)) === undefined,
  );
  if (lost.length > 0) {
    const names = lost.map(([path]) => basename(path)).join(', ');
    throw new CniError(CniCode.IoFailure, `${backup.directory}: saved files are missing: ${names}`, {
      details: 'put them back, or create empty files in their place to go on without them',
    });
  }
  const paths = [...new Set([...Object.keys(backup.saved), ...Object.keys(ours)])];
  return paths.filter((path) => !restoreOne(path, backup, ours[path], temporary(path)));
}

/** @returns false when the file at the path is neither ours nor the saved one */
function restoreOne(
  path: string,
  { directory, saved }: Backup,
  ours: Digest | undefined,
  temporary: string,
): boolean {
  rmSync(temporary, { force: true });
  const present = digestAt(path);
  const source = saved[path] === true ? savedAt(directory, path) : undefined;
  const wanted = source === undefined ? undefined : digestAt(source);
  if (present === wanted) return true;
  if (present !== undefined && present !== ours) return false;
  if (source === undefined) {
    rmSync(path, { force: true });
    sync(dirname(path));
    return true;
  }
  mkdirSync(dirname(path), { recursive: true });
  linkOrCopy(source, temporary);
  putInPlace(temporary, path);
  return true;
}

/** A directory next to the bin directory with the time in its name; it does not exist yet. */
export function newDirectory(binDir: string, now: Date): string {
  const time = now.toISOString().replaceAll(/[-:]|\.\d+/g, '');
  for (let count = 1; ; count++) {
    const path = `${binDir}-before-weft-${time}${count === 1 ? '' : `-${count}`}`;
    if (!existsSync(path)) return path;
  }
}

function savedAt(directory: string, path: string): string {
  return join(directory, basename(path));
}
