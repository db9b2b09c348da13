import { resolve } from 'node:path';
import type { PluginName } from '../../plugins/index.ts';

export { PLUGIN_NAMES, type PluginName } from '../../plugins/index.ts';

/** The folder of the executables under test: what `node build.mjs` makes, unless WEFT_BIN names another. */
export const binDir: string = process.env['WEFT_BIN'] ?? resolve(import.meta.dirname, '../../dist/bin');

export function executable(name: PluginName | 'weft'): string {
  return `${binDir}/${name}`;
}
