import { accessSync, constants, statSync } from 'node:fs';
import { execaSync } from 'execa';
import { CniCode, CniError } from '../cni/errors.ts';

/** How a program can fail to run to its own end. A non-zero exit code is none of these: it is the program's answer. */
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
  /** The whole of the program's stdin; empty when left out. */
  readonly input?: string;
  /** The whole environment of the child; the caller's own when left out. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** The program is killed after this many milliseconds. */
  readonly timeoutMs: number;
}

export interface RunResult {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** More than any CNI result or `iptables-save` of ten thousand containers. */
const OUTPUT_LIMIT = 64 * 1024 * 1024;

/**
 * Runs a program to its end, in the network namespace that the calling thread is in, without a shell and without a search
 * in PATH (see {@link findProgram}). Throws RunError when it cannot be started, is ended by a signal or does not end in time.
 */
export function runProgram(file: string, args: readonly string[], options: RunOptions): RunResult {
  const result = execaSync(file, args, {
    input: options.input ?? '',
    cwd: workingFolder(),
    ...(options.env === undefined ? {} : { env: present(options.env), extendEnv: false }),
    timeout: options.timeoutMs,
    killSignal: 'SIGKILL',
    maxBuffer: OUTPUT_LIMIT,
    stripFinalNewline: false,
    reject: false,
    verbose: 'none',
  });
  if (result.timedOut || result.isMaxBuffer || result.exitCode === undefined) {
    throw runError(file, options.timeoutMs, result);
  }
  return { exitCode: result.exitCode, stdout: result.stdout, stderr: result.stderr };
}

/** Where distributions keep administrators' programs: a PATH inherited from systemd or Nomad may lack all of these. */
const USUAL_FOLDERS = ['/usr/sbin', '/sbin', '/usr/bin', '/bin', '/usr/local/sbin'];

/** Absolute path of the program: searched in PATH, then in the usual folders; undefined when there is none. */
export function findProgram(
  name: string,
  path: string | undefined = process.env['PATH'],
): string | undefined {
  const folders = (path ?? '').split(':').filter((folder) => folder.startsWith('/'));
  const each = new Set([...folders, ...USUAL_FOLDERS]);
  return [...each].map((folder) => `${folder}/${name}`).find(isProgram);
}

/** Nearly everywhere there is no such file: that is found out by one call, and without the cost of an exception. */
function isProgram(file: string): boolean {
  try {
    if (statSync(file, { throwIfNoEntry: false })?.isFile() !== true) return false;
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** The agent's working folder may have been deleted under it, which no program of ours depends on. */
function workingFolder(): string {
  try {
    return process.cwd();
  } catch {
    return '/';
  }
}

function present(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const entries = Object.entries(env).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return Object.fromEntries(entries);
}

interface Failed {
  readonly timedOut: boolean;
  readonly isMaxBuffer: boolean;
  readonly signal?: string | undefined;
  readonly code?: string | undefined;
  readonly stderr: string;
  readonly cause?: unknown;
}

/** What the error numbers of starting a program (execve(2)) mean to whoever runs it. */
const START_FAILURES: Readonly<Record<string, { failure: RunFailure; words: string }>> = {
  ENOENT: { failure: 'missing', words: 'there is no such program, or its interpreter is missing' },
  ENOTDIR: { failure: 'missing', words: 'there is no such program' },
  EACCES: { failure: 'denied', words: 'it is not executable' },
  EPERM: { failure: 'denied', words: 'the kernel forbids it' },
  ETXTBSY: { failure: 'busy', words: 'it is being written (text file busy)' },
};

function runError(file: string, timeoutMs: number, failed: Failed): RunError {
  const said = failed.stderr.trim().slice(-1000);
  const options = { cause: failed.cause, ...(said === '' ? {} : { details: said }) };
  if (failed.timedOut) {
    const message = `${file} did not end within ${timeoutMs / 1000} s and was killed`;
    return new RunError(CniCode.TryAgainLater, 'timeout', message, options);
  }
  if (failed.isMaxBuffer) {
    const message = `${file} printed more than ${OUTPUT_LIMIT / 1024 / 1024} MiB and was killed`;
    return new RunError(CniCode.IoFailure, 'output', message, options);
  }
  if (failed.signal !== undefined) {
    const message = `${file} was ended by ${failed.signal}`;
    return new RunError(CniCode.IoFailure, 'signal', message, options);
  }
  const known = START_FAILURES[failed.code ?? ''];
  const words = known?.words ?? failed.code ?? String(failed.cause);
  return new RunError(CniCode.IoFailure, known?.failure ?? 'start', `cannot run ${file}: ${words}`, options);
}
