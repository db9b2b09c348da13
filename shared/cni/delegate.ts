import { statSync } from 'node:fs';
import * as z from 'zod/mini';
import { sleep } from '../kernel/deadline.ts';
import { RunError, runProgram, type RunResult } from '../process/run-program.ts';
import { decodeAs } from '../config/decode.ts';
import { CniCode, CniError } from './errors.ts';
import { parseJson, show } from '../config/json.ts';
import type { Invocation } from './plugin.ts';
import { parseResult, type CniResult } from './results.ts';
import { isCniVersion, type CniVersion } from './versions.ts';

/** The caller's own call, as a delegate gets it. `Invocation` fits. */
export interface DelegateCall extends Pick<
  Invocation<unknown>,
  'command' | 'path' | 'stdin' | 'environment' | 'cniVersion' | 'warn'
> {
  /** The delegate is killed after this time; default: at the call's deadline. */
  readonly timeoutMs?: number;
}

/** Milliseconds before each further attempt on a program that is being replaced; about 5 s in all. */
const BUSY_PAUSES = [20, 80, 300, 1000, 1600, 2000];

/**
 * The first regular file called `name` in the directories of CNI_PATH; symbolic links are followed, the mode is ignored.
 * Throws CniError 7 for an invalid name, 5 when no directory has it.
 */
export function findPlugin(name: string, path: readonly string[]): string {
  if (name === '') throw new CniError(CniCode.InvalidNetworkConfig, 'no plugin name provided');
  if (name.includes('/') || name.includes('\0')) {
    throw new CniError(CniCode.InvalidNetworkConfig, `invalid plugin name: ${name.slice(0, 80)}`);
  }
  if (path.length === 0) throw new CniError(CniCode.InvalidEnvironment, 'no paths provided');
  const file = path.map((folder) => `${folder}/${name}`).find(isRegularFile);
  if (file !== undefined) return file;
  throw new CniError(CniCode.IoFailure, `failed to find plugin ${show(name)} in path [${path.join(' ')}]`, {
    details: 'install it in one of the directories of CNI_PATH',
  });
}

/**
 * Runs plugin `name` with ADD: the same stdin, and the same environment but for CNI_COMMAND. Its result is read in its own
 * version (the configuration's when it names none). Its error becomes ours, with code, msg and details.
 */
export function delegateAdd(name: string, call: DelegateCall): CniResult {
  const { stdout } = run(name, 'ADD', call);
  const what = `result of ${name}`;
  const document = parseJson(stdout, `invalid ${what}`);
  if (document === null) return { interfaces: [], ips: [], routes: [], dns: {} };
  return parseResult(versionOf(document, call.cniVersion, what), document, what);
}

/** Runs plugin `name` with a verb that has no result. To roll an ADD back: `DEL`. */
export function delegate(
  name: string,
  command: Exclude<DelegateCall['command'], 'ADD'>,
  call: DelegateCall,
): void {
  run(name, command, call);
}

/** The stderr of a delegate that succeeds is passed on to the runtime; of one that fails, it becomes part of the error. */
function run(name: string, command: string, call: DelegateCall): RunResult {
  const result = runWhenFree(findPlugin(name, call.path), {
    input: call.stdin,
    env: { ...call.environment, CNI_COMMAND: command },
    ...(call.timeoutMs === undefined ? {} : { timeoutMs: call.timeoutMs }),
  });
  if (result.exitCode !== 0) throw delegateError(name, result);
  for (const line of result.stderr.split('\n').filter((text) => text.trim() !== '')) call.warn(line);
  return result;
}

/** Tries again while the executable is being replaced in place (ETXTBSY). */
function runWhenFree(file: string, options: Parameters<typeof runProgram>[2], attempt = 0): RunResult {
  try {
    return runProgram(file, [], options);
  } catch (thrown) {
    const pause = BUSY_PAUSES[attempt];
    if (!(thrown instanceof RunError) || thrown.failure !== 'busy' || pause === undefined) throw thrown;
    sleep(pause);
    return runWhenFree(file, options, attempt + 1);
  }
}

const ErrorDocument = z.object({
  code: z.int(),
  msg: z._default(z.string(), ''),
  details: z._default(z.string(), ''),
});

function delegateError(name: string, { exitCode, stdout, stderr }: RunResult): CniError {
  const said = stderr.trim().slice(-2000);
  if (stdout.trim() === '') {
    const message =
      said === ''
        ? `netplugin failed with no error message: exit status ${exitCode}`
        : `netplugin failed: ${JSON.stringify(said)}`;
    return new CniError(CniCode.Internal, message, { details: `the plugin is ${name}` });
  }
  const unreadable = `netplugin failed but error parsing its diagnostic message ${JSON.stringify(stdout.slice(0, 200))}`;
  try {
    const document = parseJson(stdout, unreadable);
    const { code, msg, details } = decodeAs(ErrorDocument, document, CniCode.DecodingFailure, unreadable);
    return new CniError(code, msg, { details });
  } catch (thrown) {
    return new CniError(CniCode.Internal, thrown instanceof Error ? thrown.message : unreadable, {
      cause: thrown,
      ...(said === '' ? {} : { details: said }),
    });
  }
}

function versionOf(document: unknown, configured: CniVersion, what: string): CniVersion {
  const Version = z.looseObject({ cniVersion: z._default(z.string(), '') });
  const { cniVersion } = decodeAs(Version, document, CniCode.DecodingFailure, `invalid ${what}`);
  if (cniVersion === '') return configured;
  if (isCniVersion(cniVersion)) return cniVersion;
  throw new CniError(
    CniCode.IncompatibleVersion,
    `${what} has cniVersion ${show(cniVersion)}, which is not supported`,
  );
}

function isRegularFile(file: string): boolean {
  try {
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
