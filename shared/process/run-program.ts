import { accessSync, constants, statSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { runToEnd, type Ran } from './run-to-end.ts';
import { trace } from './trace.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import { deadlineIn, timeoutError } from '../kernel/deadline.ts';
import { KernelError } from '../kernel/errno.ts';
import { spawnProgram, type Child } from '../kernel/spawn.ts';

/** Why a program did not run to its end. A non-zero exit code is none of these: it is the program's answer. */
export type RunFailure = 'missing' | 'busy' | 'denied' | 'timeout' | 'signal' | 'output' | 'start';

export class RunError extends CniError {
  readonly failure: RunFailure;

  constructor(
    code: number,
    failure: RunFailure,
    message: string,
    options: { details?: string; cause?: unknown } = {},
  ) {
    super(code, message, options);
    this.failure = failure;
  }
}

export interface RunOptions {
  /** The program's standard input; default empty. */
  readonly input?: string;
  /** The program's complete environment; default the caller's own. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** The program is killed after this time, or at the call's deadline if that is earlier; default: at the call's deadline. */
  readonly timeoutMs?: number;
}

export interface RunResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Runs a program to its end, in the network namespace of the calling thread, without a shell and without a search
 * in PATH (see {@link findProgram}).
 * @throws RunError when it cannot be started, is killed by a signal, prints too much or does not end in time
 */
export function runProgram(file: string, args: readonly string[], options: RunOptions = {}): RunResult {
  const wait = deadlineIn(options.timeoutMs);
  trace(() => `run ${[file, ...args].join(' ')}`);
  leaveDeletedDirectory();
  const child = start(file, args, options.env ?? process.env);
  const ran = runToEnd(child, options.input ?? '', wait, OUTPUT_LIMIT);
  const { ended, stdout, stderr } = ran;
  if (ended === 'timeout') {
    const { code, message } = timeoutError(`waiting for ${file} to end, and killed it`, wait);
    throw new RunError(code, 'timeout', message, said(ran));
  }
  if (ended === 'output') {
    const message = `${file} printed more than ${OUTPUT_LIMIT / 1024 / 1024} MiB and was killed`;
    throw new RunError(CniCode.IoFailure, 'output', message, said(ran));
  }
  if ('signal' in ended) {
    const message = `${file} was killed by ${signalName(ended.signal)}`;
    throw new RunError(CniCode.IoFailure, 'signal', message, said(ran));
  }
  return { exitCode: ended.exitCode, stdout, stderr };
}

/** Absolute path of a program: searched in PATH, then in the usual directories; undefined when it is not installed. */
export function findProgram(
  name: string,
  path: string | undefined = process.env['PATH'],
): string | undefined {
  const folders = (path ?? '').split(':').filter((folder) => folder.startsWith('/'));
  return [...new Set([...folders, ...USUAL_DIRECTORIES])]
    .map((folder) => `${folder}/${name}`)
    .find(isExecutable);
}

/** More than any CNI result or the `iptables-save` of ten thousand containers. */
const OUTPUT_LIMIT = 64 * 1024 * 1024;
/** Administrators' programs are here; the PATH that systemd or Nomad passes on may have none of these directories. */
const USUAL_DIRECTORIES = ['/usr/sbin', '/sbin', '/usr/bin', '/bin', '/usr/local/sbin'];

/** A file that the caller may execute. Most candidates do not exist: statSync finds that out without the cost of an exception. */
export function isExecutable(file: string): boolean {
  try {
    if (statSync(file, { throwIfNoEntry: false })?.isFile() !== true) return false;
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** A shell complains about a directory that was deleted; nothing here depends on it. */
function leaveDeletedDirectory(): void {
  try {
    process.cwd();
  } catch {
    process.chdir('/');
  }
}

function start(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): Child {
  const defined = Object.entries(env).flatMap(([name, value]) =>
    value === undefined ? [] : [`${name}=${value}`],
  );
  try {
    return spawnProgram(file, args, defined);
  } catch (thrown) {
    if (!(thrown instanceof KernelError)) throw thrown;
    const known = START_FAILURES[thrown.code];
    const message = `cannot run ${file}: ${known?.reason ?? thrown.message}`;
    throw new RunError(CniCode.IoFailure, known?.failure ?? 'start', message, { cause: thrown });
  }
}

/** Errors of execve(2). */
const START_FAILURES: Readonly<Record<string, { failure: RunFailure; reason: string }>> = {
  ENOENT: { failure: 'missing', reason: 'no such program, or its interpreter is missing' },
  ENOTDIR: { failure: 'missing', reason: 'no such program' },
  EACCES: { failure: 'denied', reason: 'not executable' },
  EPERM: { failure: 'denied', reason: 'operation not permitted' },
  ETXTBSY: { failure: 'busy', reason: 'the file is being written (text file busy)' },
  ENOEXEC: { failure: 'start', reason: 'neither a program of this architecture nor a script with #!' },
};

function said({ stderr }: Ran): { details?: string } {
  const text = stderr.trim().slice(-1000);
  return text === '' ? {} : { details: text };
}

function signalName(number: number): string {
  const known = Object.entries(osConstants.signals).find(([, value]) => value === number);
  return known?.[0] ?? `signal ${number}`;
}
