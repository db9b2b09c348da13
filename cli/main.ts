import { PLUGIN_NAMES, pluginNamed } from '../plugins/index.ts';
import type { CallOrigin } from '../shared/cni/plugin.ts';
import { configurationOfAdd } from '../shared/attachments/cached-results.ts';
import { runPlugin } from '../shared/cni/protocol.ts';
import { isOwnNamespace } from '../shared/kernel/namespace.ts';
import { readStdin, writeAll } from '../shared/kernel/stdio.ts';

/**
 * Runs the plugin or command called `name` to its end and resolves to the exit code; ending the process is the caller's.
 * @param name the basename under which the executable was called
 * @param argv what follows it; plugins read nothing of a runtime's from it
 */
export async function main(name: string, argv: readonly string[]): Promise<number> {
  if (name === 'weft') return (await import('./weft.ts')).weft(argv);
  const entry = pluginNamed(name);
  if (entry === undefined) return rejectName(name);
  // A plugin with two names (consul-tproxy, consul-cni) uses the one it was called by.
  const plugin = { ...(await entry.load()), name };
  return runPlugin(plugin, {
    environment: process.env,
    readStdin,
    isOwnNamespace,
    configurationOfAdd,
    writeOut: (text) => writeAll(1, text),
    writeErr: (text) => writeAll(2, text, LOG_LIMIT_MS),
    origin: launcherIn(argv),
  });
}

/** The launcher names its file as `launcher=DEVICE:INODE`. */
function launcherIn([first = '']: readonly string[]): CallOrigin | undefined {
  const [, dev, ino] = /^launcher=(\d+):(\d+)$/.exec(first) ?? [];
  if (dev === undefined || ino === undefined) return undefined;
  return { launcher: { dev: BigInt(dev), ino: BigInt(ino) }, inAgent: false };
}

/** A log that is not read must not use up the call's time. */
const LOG_LIMIT_MS = 1_000;

/** Nomad runs every file of its plugin directory: an unknown name must not look like a plugin that works. */
function rejectName(name: string): number {
  const known = [...PLUGIN_NAMES, 'weft'].join(', ');
  writeAll(2, `weft: unknown plugin "${name}"; link this executable under one of these names: ${known}\n`);
  return 1;
}
