import { accessSync, constants, statSync } from 'node:fs';
import { execaSync } from 'execa';
import { trace } from './trace.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import { deadlineIn, timeoutError } from '../kernel/deadline.ts';

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
  const result = execaSync(file, args, {
    input: options.input ?? '',
    cwd: workingDirectory(),
    ...(options.env === undefined ? {} : { env: defined(options.env), extendEnv: false }),
    // 0 would mean no limit.
    timeout: Math.max(1, Math.ceil(wait.remainingMs())),
    killSignal: 'SIGKILL',
    maxBuffer: OUTPUT_LIMIT,
    stripFinalNewline: false,
    reject: false,
    verbose: 'none',
  });
  if (result.timedOut) {
    const { code, message } = timeoutError(`waiting for ${file} to end, and killed it`, wait);
    throw new RunError(code, 'timeout', message, explained(result));
  }
  if (result.isMaxBuffer || result.exitCode === undefined) throw runError(file, result);
  return { exitCode: result.exitCode, stdout: result.stdout, stderr: result.stderr };
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

/** The caller's own may have been deleted. */
function workingDirectory(): string {
  try {
    return process.cwd();
  } catch {
    return '/';
  }
}

function defined(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const entries = Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return Object.fromEntries(entries);
}

interface FailedRun {
  readonly isMaxBuffer: boolean;
  readonly signal?: string | undefined;
  readonly code?: string | undefined;
  readonly stderr: string;
  readonly cause?: unknown;
}

/** Errors of execve(2). */
const START_FAILURES: Readonly<Record<string, { failure: RunFailure; reason: string }>> = {
  ENOENT: { failure: 'missing', reason: 'no such program, or its interpreter is missing' },
  ENOTDIR: { failure: 'missing', reason: 'no such program' },
  EACCES: { failure: 'denied', reason: 'not executable' },
  EPERM: { failure: 'denied', reason: 'operation not permitted' },
  ETXTBSY: { failure: 'busy', reason: 'the file is being written (text file busy)' },
};

function runError(file: string, failed: FailedRun): RunError {
  const options = explained(failed);
  if (failed.isMaxBuffer) {
    const message = `${file} printed more than ${OUTPUT_LIMIT / 1024 / 1024} MiB and was killed`;
    return new RunError(CniCode.IoFailure, 'output', message, options);
  }
  if (failed.signal !== undefined) {
    return new RunError(CniCode.IoFailure, 'signal', `${file} was killed by ${failed.signal}`, options);
  }
  const known = START_FAILURES[failed.code ?? ''];
  const reason = known?.reason ?? failed.code ?? String(failed.cause);
  return new RunError(CniCode.IoFailure, known?.failure ?? 'start', `cannot run ${file}: ${reason}`, options);
}

function explained({ stderr, cause }: Pick<FailedRun, 'stderr' | 'cause'>): {
  cause?: unknown;
  details?: string;
} {
  const text = stderr.trim().slice(-1000);
  return { cause, ...(text === '' ? {} : { details: text }) };
}
