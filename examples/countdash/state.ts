import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { linesOf, tool } from './tool.ts';
import type { Footprint } from './footprint.ts';
import { NAMES, type ConsulDns, type Group } from './plan.ts';

/**
 * Everything that the clean-up needs, written before anything is created: the next run cleans up after one that was killed.
 */
export interface State {
  readonly pid: number;
  /** Clock ticks after boot at which the process started (field 22 of /proc/<pid>/stat): pids are reused. */
  readonly started: string;
  readonly before: Footprint;
  readonly binDirs: readonly string[];
  /** The network list as text. */
  readonly list: string;
  readonly subnets: readonly string[];
  readonly groups: readonly Group[];
  readonly dns: ConsulDns | undefined;
}

const FILE = join(NAMES.folder, 'state.json');

export function writeState(state: State): void {
  mkdirSync(NAMES.folder, { recursive: true, mode: 0o700 });
  writeFileSync(`${FILE}.new`, JSON.stringify(state), { mode: 0o600 });
  renameSync(`${FILE}.new`, FILE);
}

/** State of an earlier run; undefined when there is none, or when it ended before anything was created. */
export function readState(): State | undefined {
  try {
    return JSON.parse(readFileSync(FILE, 'utf8')) as State;
  } catch {
    return undefined;
  }
}

/** What Nomad mounted in its allocations' directories goes first: removing files through a mount would remove those of another directory. */
export function removeState(): void {
  const mounts = linesOf(readFileSync('/proc/self/mountinfo', 'utf8')).map(
    (line) => line.split(' ')[4] ?? '',
  );
  for (const point of mounts.filter((one) => one.startsWith(`${NAMES.folder}/`)).toReversed())
    tool('umount', [point]);
  rmSync(NAMES.folder, { recursive: true, force: true });
}

/** Whether the run that wrote the state is still active. */
export function isAlive({ pid, started }: Pick<State, 'pid' | 'started'>): boolean {
  return startOf(pid) === started;
}

/** The start time of a process, '' when there is none. The second field, in parentheses, may hold anything. */
export function startOf(pid: number): string {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
  } catch {
    return '';
  }
}
