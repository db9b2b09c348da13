import { accessSync, constants, existsSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { isErrno } from '../../shared/kernel/errno.ts';
import { findProgram, runProgram } from '../../shared/process/run-program.ts';
import { identify, type Identity } from './identify.ts';
import { digestAt } from './installed-files.ts';
import type { Places, Target } from './target.ts';
import type { RunPlugin } from './verify.ts';

/**
 * Whether the installation can be completed; otherwise nothing is changed. That the plugins run here is found out later, by running them
 * from the bin directory before any name is replaced.
 */
export function requireInstallable(places: Places, target: Target): void {
  const problems = [
    ...directoriesOf(places, target).flatMap(notWritable),
    ...noSpace(places, target),
    ...seLinuxProblem(),
  ];
  if (problems.length === 0) return;
  throw new CniError(CniCode.IoFailure, `cannot install: ${problems.join('; ')}`, {
    details: 'nothing was changed',
  });
}

/** What is under the names that are about to be replaced. @throws CniError 5 for another vendor's file */
export function identifyReplaced(paths: readonly string[], run: RunPlugin): Map<string, Identity> {
  const found = paths.filter((path) => digestAt(path) !== undefined);
  // Names of one file are one plugin, which prints the name that it is called by: it is searched once.
  const known = new Map<string, Identity>();
  const identities = new Map(
    found.map((path) => {
      const digest = digestAt(path) ?? '';
      const identity = known.get(digest) ?? identify(path, run);
      if (identity.vendor !== undefined) known.set(digest, identity);
      return [path, identity];
    }),
  );
  const others = [...identities].filter(([, { vendor }]) => vendor === undefined);
  if (others.length === 0) return identities;
  const list = others.map(([path, { text }]) => `${path} (${text})`).join(', ');
  throw new CniError(CniCode.IoFailure, `not a plugin of the CNI reference, of Consul or of Weft: ${list}`, {
    details: 'nothing was changed; move the file away, or choose another directory with --bin-dir',
  });
}

function directoriesOf({ binDir }: Places, { files }: Target): string[] {
  // The saved files are put next to the bin directory.
  return [...new Set([binDir, dirname(binDir), ...files.map(({ path }) => dirname(path))])];
}

/** The directory itself, or where it will be created. */
function existing(directory: string): string {
  let path = directory;
  while (!existsSync(path) && path !== '/') path = dirname(path);
  return path;
}

function notWritable(directory: string): string[] {
  const path = existing(directory);
  try {
    if (!statSync(path).isDirectory()) return [`${path} is not a directory`];
    accessSync(path, constants.W_OK | constants.X_OK);
    return [];
  } catch (thrown) {
    if (isErrno(thrown, 'EROFS')) return [`${path} is on a read-only file system`];
    if (isErrno(thrown, 'EACCES', 'EPERM')) return [`no permission to write to ${path}; run as root`];
    throw thrown;
  }
}

/** Files besides the executables: state, saved links, names. */
const SMALL_FILES_BYTES = 2 ** 20;
const SMALL_FILES = 32;

function noSpace({ binDir }: Places, { executable, launcher, files }: Target): string[] {
  const needed = new Map<number, { path: string; bytes: number }>();
  const add = (directory: string, bytes: number): void => {
    const path = existing(directory);
    const { dev } = statSync(path);
    needed.set(dev, { path, bytes: (needed.get(dev)?.bytes ?? SMALL_FILES_BYTES) + bytes });
  };
  add(binDir, executable.sizeBytes + (launcher?.length ?? 0));
  for (const { path, content } of files)
    if (content === 'executable' && dirname(path) !== binDir) add(dirname(path), executable.sizeBytes);
  return [...needed.values()].flatMap(({ path, bytes }) => {
    const { bavail, bsize, files: inodes, ffree } = statfsSync(path);
    if (inodes > 0 && ffree < SMALL_FILES) return [`no free inodes on the file system of ${path}`];
    const free = bavail * bsize;
    return free >= bytes
      ? []
      : [`no space on the file system of ${path}: ${megabytes(bytes)} needed, ${megabytes(free)} free`];
  });
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(0)} MB`;
}

const SELINUX_ENFORCE = '/sys/fs/selinux/enforce';

function seLinuxProblem(): string[] {
  if (!existsSync(SELINUX_ENFORCE) || findProgram('restorecon') !== undefined) return [];
  if (readFileSync(SELINUX_ENFORCE, 'utf8').trim() !== '1') return [];
  return [
    'SELinux is enforcing, and restorecon, which labels the files, is missing; install policycoreutils',
  ];
}

/** Gives files the SELinux label of their path. @throws CniError 5 */
export function labelFiles(paths: readonly string[]): void {
  const restorecon = existsSync(SELINUX_ENFORCE) ? findProgram('restorecon') : undefined;
  if (restorecon === undefined) return;
  const { exitCode, stderr } = runProgram(restorecon, ['-R', ...paths]);
  if (exitCode === 0) return;
  throw new CniError(CniCode.IoFailure, `restorecon failed (exit status ${exitCode})`, {
    details: stderr.trim(),
  });
}
