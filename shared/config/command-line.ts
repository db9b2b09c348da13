import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';
import { toCniError } from '../cni/errors.ts';
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
    const { message, details } = toCniError(thrown);
    writeAll(2, `weft ${name}: ${message}${details === undefined || details === '' ? '' : `; ${details}`}\n`);
    return 1;
  }
}
