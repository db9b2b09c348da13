import { basename, dirname, join } from 'node:path';

/**
 * The command line that runs `weft` again, from whatever this is: the executable, or the sources under a Node. The executable acts by
 * the name that it is called by, so it must be called by its file named `weft`.
 */
export function weftCommand(): string[] {
  const { execPath } = process;
  if (process.getBuiltinModule('node:sea').isSea()) {
    return [basename(execPath) === 'weft' ? execPath : join(dirname(execPath), 'weft')];
  }
  const main = JSON.stringify(new URL('../../cli/main.ts', import.meta.url).href);
  const code = `const { main } = await import(${main}); process.exit(await main('weft', process.argv.slice(1)));`;
  return [execPath, '--no-warnings', '--input-type=module', '-e', code, '--'];
}
