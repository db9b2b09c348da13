import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { findProgram, runProgram, type RunResult } from '../../shared/process/run.ts';

const TIMEOUT_MS = 20_000;

/** Runs one of the host's tools to its end, whatever its exit code. Throws CniError when there is no such tool. */
export function tryTool(name: string, args: readonly string[], input = ''): RunResult {
  const file = findProgram(name);
  if (file === undefined) throw new CniError(CniCode.IoFailure, `there is no "${name}" on this host`);
  return runProgram(file, args, { input, timeoutMs: TIMEOUT_MS });
}

/** The tool's output. Throws CniError with what it complained about. */
export function tool(name: string, args: readonly string[], input = ''): string {
  const { exitCode, stdout, stderr } = tryTool(name, args, input);
  if (exitCode === 0) return stdout;
  throw new CniError(
    CniCode.IoFailure,
    `${[name, ...args].join(' ')} failed: ${stderr.trim() || `exit code ${exitCode}`}`,
  );
}

/** The output; '' when the host lacks the tool or the tool fails: for looking at things that may not be there. */
export function toolIfThere(name: string, args: readonly string[]): string {
  if (findProgram(name) === undefined) return '';
  const { exitCode, stdout } = tryTool(name, args);
  return exitCode === 0 ? stdout : '';
}

export function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line.trim() !== '');
}
