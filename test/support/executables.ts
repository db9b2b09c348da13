import { resolve } from 'node:path';

/** The folder of the executables under test: what `node build.mjs` makes, unless WEFT_BIN names another. */
export const binDir: string = process.env['WEFT_BIN'] ?? resolve(import.meta.dirname, '../../dist/bin');

/** Every name under which a runtime may call a plugin. */
export const PLUGIN_NAMES = [
  'loopback',
  'bridge',
  'host-local',
  'firewall',
  'portmap',
  'consul-tproxy',
  'consul-cni',
] as const;

export type PluginName = (typeof PLUGIN_NAMES)[number];

export function executable(name: PluginName | 'weft'): string {
  return `${binDir}/${name}`;
}
