import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { PluginName } from '../../plugins/index.ts';

export { PLUGIN_NAMES, type PluginName } from '../../plugins/index.ts';

/** The folder of the executables under test: what `node build.mjs` makes, unless WEFT_BIN names another. */
export const binDir: string = process.env['WEFT_BIN'] ?? resolve(import.meta.dirname, '../../dist/bin');

/**
 * For many calls, which cost a tenth with the node agent: launchers and an agent, with a share of plain executables (mixed-calls.ts), or only
 * those, where the build made no launchers.
 */
export function manyCallsBin(): string {
  const agent = resolve(import.meta.dirname, '../../dist/agent');
  return existsSync(`${agent}/bridge`) ? agent : binDir;
}

/** The folder of the launchers has no `weft`: the one that they belong to lies beside it. */
export function executable(name: PluginName | 'weft'): string {
  if (name === 'weft' && existsSync(`${binDir}/.weft`)) return resolve(binDir, '../bin/weft');
  return `${binDir}/${name}`;
}
