import type { Plugin } from '../shared/cni/plugin.ts';
import { runPlugin, type ProcessEdge } from '../shared/cni/protocol.ts';
import { isOwnNamespace } from '../shared/kernel/namespace.ts';
import { readStdin, writeAll } from '../shared/kernel/stdio.ts';

/** The plugin names that the one executable answers to. A plugin is loaded only when it is called by its name. */
const PLUGINS: ReadonlyMap<string, () => Promise<Run>> = new Map([
  ['loopback', async () => runner((await import('../plugins/loopback/plugin.ts')).plugin)],
  ['bridge', async () => runner((await import('../plugins/bridge/plugin.ts')).plugin)],
  ['host-local', async () => runner((await import('../plugins/host-local/plugin.ts')).plugin)],
  ['firewall', async () => runner((await import('../plugins/firewall/plugin.ts')).plugin)],
  ['portmap', async () => runner((await import('../plugins/portmap/plugin.ts')).plugin)],
  ['consul-tproxy', async () => runner((await import('../plugins/consul-tproxy/plugin.ts')).plugin)],
  ['consul-cni', async () => runner((await import('../plugins/consul-tproxy/plugin.ts')).plugin)],
]);

/**
 * Runs the plugin or command called `name` to its end and resolves to the exit code; ending the process is the caller's.
 * @param name the basename under which the executable was called
 * @param argv what follows it; plugins read nothing from it
 */
export async function main(name: string, argv: readonly string[]): Promise<number> {
  if (name === 'weft') return (await import('./weft.ts')).weft(argv);
  const load = PLUGINS.get(name);
  if (load === undefined) return refuse(name);
  const run = await load();
  return run(name, {
    environment: process.env,
    readStdin,
    isOwnNamespace,
    writeOut: (text) => writeAll(1, text),
    writeErr: (text) => writeAll(2, text, LOG_LIMIT_MS),
  });
}

/** A log that is not read must not use up the call's time. */
const LOG_LIMIT_MS = 1_000;

type Run = (name: string, edge: ProcessEdge) => number;

/** A plugin with two names (consul-tproxy, consul-cni) speaks of itself by the one it was called by. */
function runner<Config>(plugin: Plugin<Config>): Run {
  return (name, edge) => runPlugin({ ...plugin, name }, edge);
}

/** Nomad runs every file of its plugin folder: a name that we do not know must not look like a plugin that works. */
function refuse(name: string): number {
  const known = [...PLUGINS.keys(), 'weft'].join(', ');
  writeAll(
    2,
    `weft: no plugin is called "${name}"; link this executable under one of these names: ${known}\n`,
  );
  return 1;
}
