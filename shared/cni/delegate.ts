import { statSync } from 'node:fs';
import * as z from 'zod/mini';
import { RunError, runProgram, type RunResult } from '../process/run.ts';
import { decodeAs } from '../config/decode.ts';
import { CniCode, CniError } from './errors.ts';
import { parseJson } from '../config/json.ts';
import type { Invocation } from './plugin.ts';
import { parseResult } from './results.ts';
import { show } from '../config/show.ts';
import type { CniResult, CniVersion } from './types.ts';
import { isCniVersion } from './versions.ts';

/** What a delegate gets is the caller's own call. `Invocation` fits. */
export type DelegateCall = Pick<
  Invocation<unknown>,
  'command' | 'path' | 'stdin' | 'environment' | 'cniVersion' | 'warn'
>;

/** Runtimes wait for as long as a plugin takes (Nomad with its global lock held): no delegate may take longer than this. */
const TIME_LIMIT_MS = 60_000;

/** Milliseconds before each further attempt on a program that is being replaced; about 5 s in all. */
const BUSY_PAUSES = [20, 80, 300, 1000, 1600, 2000];

/**
 * The first regular file called `name` in the folders of CNI_PATH; symbolic links are followed, the mode is not looked at.
 * Throws CniError 7 for a name that is none, 5 when no folder has it.
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
    details: 'install it in one of the folders of CNI_PATH',
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

/** Runs plugin `name` with a verb that tells nothing. For rolling an ADD back, `DEL`. */
export function delegate(
  name: string,
  command: Exclude<DelegateCall['command'], 'ADD'>,
  call: DelegateCall,
): void {
  run(name, command, call);
}

/** What a delegate says on stderr is the runtime's to read, but only when it worked: otherwise its error says it. */
function run(name: string, command: string, call: DelegateCall): RunResult {
  const result = runPatiently(findPlugin(name, call.path), {
    input: call.stdin,
    env: { ...call.environment, CNI_COMMAND: command },
    timeoutMs: TIME_LIMIT_MS,
  });
  if (result.exitCode !== 0) throw delegateError(name, result);
  for (const line of result.stderr.split('\n').filter((text) => text.trim() !== '')) call.warn(line);
  return result;
}

/** A package manager that writes the file in place makes it "text file busy" for a moment. */
function runPatiently(file: string, options: Parameters<typeof runProgram>[2], attempt = 0): RunResult {
  try {
    return runProgram(file, [], options);
  } catch (thrown) {
    const pause = BUSY_PAUSES[attempt];
    if (!(thrown instanceof RunError) || thrown.failure !== 'busy' || pause === undefined) throw thrown;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pause);
    return runPatiently(file, options, attempt + 1);
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
    `${what} has cniVersion ${show(cniVersion)}, which is not known here`,
  );
}

function isRegularFile(file: string): boolean {
  try {
    return statSync(file).isFile();
  } catch {
    return false;
  }
}
