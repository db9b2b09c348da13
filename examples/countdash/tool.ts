import { CniCode, CniError } from '../../shared/cni/errors.ts';
import {
  type RunOptions,
  type RunResult,
  findProgram,
  runProgram,
} from '../../shared/process/run-program.ts';

const TIMEOUT_MS = 20_000;

type ToolOptions = Pick<RunOptions, 'input' | 'env'>;

/** Runs one of the host's tools to its end, whatever its exit code. Throws CniError when there is no such tool. */
export function tryTool(name: string, args: readonly string[], options: ToolOptions = {}): RunResult {
  const file = findProgram(name);
  if (file === undefined) throw new CniError(CniCode.IoFailure, `there is no "${name}" on this host`);
  return runProgram(file, args, { ...options, timeoutMs: TIMEOUT_MS });
}

/** The tool's output. Throws CniError with what it complained about. */
export function tool(name: string, args: readonly string[], options: ToolOptions = {}): string {
  const { exitCode, stdout, stderr } = tryTool(name, args, options);
  if (exitCode === 0) return stdout;
  throw new CniError(
    CniCode.IoFailure,
    `${[name, ...args].join(' ')} failed: ${stderr.trim() || `exit code ${exitCode}`}`,
  );
}

/** The output; '' when the host lacks the tool or the tool fails. For things that may not exist. */
export function toolIfThere(name: string, args: readonly string[]): string {
  if (findProgram(name) === undefined) return '';
  const { exitCode, stdout } = tryTool(name, args);
  return exitCode === 0 ? stdout : '';
}

export function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line.trim() !== '');
}

interface Mount {
  readonly id: string;
  readonly parent: string;
  readonly point: string;
}

/**
 * Whether something is mounted right at `path`, and to be seen there: what lies beneath a later mount of a folder above it does
 * not count.
 * @param mountinfo /proc/self/mountinfo; each line begins with `id parent major:minor root mount-point`
 */
export function isMountPoint(path: string, mountinfo: string): boolean {
  const mounts = linesOf(mountinfo).map((line): Mount => {
    const [id = '', parent = '', , , point = ''] = line.split(' ');
    return { id, parent, point };
  });
  const ids = new Set(mounts.map(({ id }) => id));
  let current = mounts.find(({ parent, id }) => !ids.has(parent) || parent === id);
  for (let above = current; above !== undefined;) {
    current = above;
    above = mounts
      .filter(({ id, parent, point }) => parent === current?.id && id !== parent && jumpsTo(point, path))
      // Of two on the same mount, the one nearer to the root hides the other.
      .sort((one, other) => one.point.length - other.point.length)[0];
  }
  return current?.point === path;
}

function jumpsTo(point: string, path: string): boolean {
  return point === '/' || point === path || path.startsWith(`${point}/`);
}
