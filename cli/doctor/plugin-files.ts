import { readdirSync, lstatSync, statSync, type Stats } from 'node:fs';
import { isErrno } from '../../shared/kernel/errno.ts';
import { runAll, type Ended } from '../../shared/process/run-all.ts';

/** A file of Nomad's cni_path that Nomad runs when its client starts: each with an executable bit (client/fingerprint/plugins_cni.go). */
export interface PluginFile {
  readonly name: string;
  readonly path: string;
  readonly directory: string;
  readonly isExecutable: boolean;
  /** Of what a symbolic link leads to; undefined when it leads nowhere. */
  readonly stats: Stats | undefined;
  /** False for one that an earlier directory hides. */
  readonly isFirst: boolean;
}

export interface PluginDirectory {
  readonly path: string;
  /** Undefined when it can be read. */
  readonly problem: string | undefined;
}

/** Directories of cni_path in their order, and their files. */
export function findPluginFiles(cniPath: readonly string[]): {
  directories: PluginDirectory[];
  files: PluginFile[];
} {
  const directories: PluginDirectory[] = [];
  const files: PluginFile[] = [];
  for (const directory of cniPath) {
    const names = readNames(directory);
    directories.push({ path: directory, problem: Array.isArray(names) ? undefined : names.problem });
    for (const name of Array.isArray(names) ? names.sort() : []) {
      const path = `${directory}/${name}`;
      const own = lstatSync(path, { throwIfNoEntry: false });
      const stats = statSync(path, { throwIfNoEntry: false });
      if (own === undefined || stats?.isDirectory() === true) continue;
      const isFirst = !files.some((other) => other.name === name);
      files.push({ name, path, directory, isExecutable: (own.mode & 0o111) !== 0, stats, isFirst });
    }
  }
  return { directories, files };
}

function readNames(directory: string): string[] | { problem: string } {
  try {
    return readdirSync(directory);
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT')) return { problem: 'does not exist' };
    return { problem: thrown instanceof Error ? thrown.message : String(thrown) };
  }
}

/** What a plugin printed without CNI_COMMAND, read as Nomad reads it. */
export interface PluginVersion {
  readonly path: string;
  /** The first word that is a semantic version; undefined when there is none, or the plugin failed. */
  readonly version: string | undefined;
  readonly outcome: Ended['outcome'];
}

/** Runs each plugin as Nomad's fingerprint does; one that takes longer than {@link VERSION_LIMIT_MS} is killed. */
export async function versionsOf(paths: readonly string[]): Promise<ReadonlyMap<string, PluginVersion>> {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('CNI_')));
  const ended = await runAll(paths, { env, timeoutMs: VERSION_LIMIT_MS });
  return new Map(
    ended.map(({ file, outcome }) => {
      const succeeded = outcome.is === 'exited' && outcome.exitCode === 0;
      const version = succeeded ? outcome.output.split(/\s+/).find((word) => SEMVER.test(word)) : undefined;
      return [file, { path: file, version, outcome }];
    }),
  );
}

/** Nomad waits 3 s. */
export const VERSION_LIMIT_MS = 2_500;
/** hashicorp/go-version, SemverRegexpRaw. */
const SEMVER =
  /^v?(\d+(\.\d+)*?)(-(\d+[0-9A-Za-z\-~]*(\.[0-9A-Za-z\-~]+)*)|(-([A-Za-z\-~]+[0-9A-Za-z\-~]*(\.[0-9A-Za-z\-~]+)*)))?(\+([0-9A-Za-z\-~]+(\.[0-9A-Za-z\-~]+)*))?$/;

/** Whether a version is at least `least`, and no pre-release, which go-version's constraints reject. */
export function satisfies(version: string, least: string): boolean {
  const [numbers = '', ...preRelease] = version.replace(/^v/, '').replace(/\+.*$/, '').split('-');
  if (preRelease.length > 0) return false;
  const [have, need] = [numbers, least].map((text) => text.split('.').map(Number));
  for (let at = 0; at < 3; at += 1) {
    const difference = (have?.[at] ?? 0) - (need?.[at] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
