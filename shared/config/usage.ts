import { parseArgs, type ParseArgsOptionsConfig } from 'node:util';

/** The command line is wrong; `weft` prints the message and where the help is, and exits with 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** `parseArgs`, with its complaints as {@link UsageError}. */
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
