import { pluginNamed } from '../../plugins/index.ts';
import { pluginFolder } from '../../conflist/runtime.ts';
import { configurationOfAdd } from '../../shared/attachments/cached-results.ts';
import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import { runPlugin } from '../../shared/cni/protocol.ts';
import { isAtLeast, isCniVersion } from '../../shared/cni/versions.ts';
import { isOwnNamespace } from '../../shared/kernel/namespace.ts';

export interface Health {
  /** `warning`: works as it was set up, but a configuration has changed; `unchecked`: see `warnings`. */
  readonly state: 'ok' | 'warning' | 'failed' | 'unchecked';
  /** Why CHECK fails, each as `PLUGIN: what is missing`. */
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
}

/** CHECK of every plugin of the attachment's list, in this process: what Nomad asks when its agent restarts. Changes nothing. */
export async function healthOf(entry: InventoryEntry): Promise<Health> {
  const obstacle = obstacleOf(entry);
  if (obstacle !== undefined) return { state: 'unchecked', problems: [], warnings: [obstacle] };
  const problems: string[] = [];
  const warnings: string[] = [];
  for (const configuration of entry.plugins) {
    const type = String(configuration['type']);
    const plugin = await pluginNamed(type)?.load();
    if (plugin === undefined) {
      warnings.push(`${type}: not a plugin of Weft, not checked`);
      continue;
    }
    let [out, log] = ['', ''];
    const exitCode = runPlugin(
      { ...plugin, name: type },
      {
        environment: environmentOf(entry),
        readStdin: () => inputOf(entry, configuration),
        isOwnNamespace,
        configurationOfAdd,
        writeOut: (text) => void (out += text),
        writeErr: (text) => void (log += text),
      },
    );
    if (exitCode !== 0) problems.push(`${type}: ${messageOf(out)}`);
    warnings.push(...log.split('\n').filter((line) => line !== ''));
  }
  const state = problems.length > 0 ? 'failed' : warnings.length > 0 ? 'warning' : 'ok';
  return { state, problems, warnings };
}

function obstacleOf({ state, reason, plugins, cniVersion, ifname }: InventoryEntry): string | undefined {
  if (state !== 'running') return reason;
  if (plugins.length === 0 || ifname === undefined) return 'the runtime cached no configuration';
  if (cniVersion === undefined || !isCniVersion(cniVersion) || !isAtLeast(cniVersion, '0.4.0'))
    return `cniVersion ${cniVersion ?? 'unknown'} has no CHECK`;
  return undefined;
}

function environmentOf({ containerId, netns, ifname = '', args }: InventoryEntry): Record<string, string> {
  return {
    PATH: process.env['PATH'] ?? '',
    CNI_COMMAND: 'CHECK',
    CNI_CONTAINERID: containerId,
    CNI_NETNS: netns,
    CNI_IFNAME: ifname,
    CNI_ARGS: args.map(([key, value]) => `${key}=${value}`).join(';'),
    CNI_PATH: pluginFolder(),
  };
}

function inputOf(
  { network, cniVersion, prevResult }: InventoryEntry,
  configuration: Readonly<Record<string, unknown>>,
): string {
  return JSON.stringify({ ...configuration, name: network, cniVersion, prevResult });
}

function messageOf(document: string): string {
  const { msg = '', details = '' } = JSON.parse(document) as { msg?: string; details?: string };
  return details === '' ? msg : `${msg}; ${details}`;
}
