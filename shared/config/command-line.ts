import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';
import { CniCode, CniError, toCniError } from '../cni/errors.ts';
import { writeAll } from '../kernel/stdio.ts';

/** The command line is wrong: the message names the argument, the exit code is 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** `parseArgs` that throws {@link UsageError}. */
export function readOptions<const Options extends ParseArgsOptionsConfig>(
  argv: readonly string[],
  options: Options,
  allowPositionals = false,
): ReturnType<
  typeof parseArgs<{ args: string[]; options: Options; strict: true; allowPositionals: boolean }>
> {
  try {
    return parseArgs({ args: [...argv], options, strict: true, allowPositionals });
  } catch (thrown) {
    throw new UsageError(thrown instanceof Error ? thrown.message : String(thrown));
  }
}

/** @param why `only root can change rules` @throws CniError for any other user */
export function requireRoot(why: string): void {
  if (process.geteuid?.() !== 0) throw new CniError(CniCode.IoFailure, why, { details: 'run it as root' });
}

/**
 * Runs a sub-command of `weft` and prints what it throws. A sub-command in a bundle of its own (build/bundle.mjs) calls this itself:
 * its error classes are not those of the other bundles.
 * @returns the exit code: 0 success, 1 failure, 2 wrong usage
 */
export async function runSubCommand(name: string, run: () => number | Promise<number>): Promise<number> {
  try {
    return await run();
  } catch (thrown) {
    if (thrown instanceof UsageError) {
      writeAll(2, `weft: ${thrown.message} (see: weft ${name} --help)\n`);
      return 2;
    }
    const { message, details = '' } = toCniError(thrown);
    const isDenied = process.geteuid?.() !== 0 && isAccessDenied(thrown);
    const remedies = [details, isDenied ? 'run it as root' : ''].filter((text) => text !== '');
    writeAll(2, `weft ${name}: ${[message, ...remedies].join('; ')}\n`);
    return 1;
  }
}

/** EACCES, of the error or of what it comes from. */
function isAccessDenied(thrown: unknown): boolean {
  return (
    thrown instanceof Error &&
    (('code' in thrown && thrown.code === 'EACCES') || isAccessDenied(thrown.cause))
  );
}
