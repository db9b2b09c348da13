import { pluginNamed, PLUGINS, type PluginEntry } from '../plugins/index.ts';
import { decodeRequest } from '../plugins/consul-tproxy/request.ts';
import type { Plugin } from '../shared/cni/plugin.ts';
import { runPlugin } from '../shared/cni/protocol.ts';
import { sha512 } from '../shared/cni/sha512.ts';
import { splitArgs } from '../shared/cni/environment.ts';
import type { CniResult } from '../shared/cni/results.ts';

/**
 * Loads every plugin and goes once through what each call goes through (environment, configuration, result, error), while the snapshot
 * is built: the modules, tables and the parsers that zod generates at the first use of a schema are then in the snapshot, and no start pays
 * for them. Functions need no rehearsal, the build compiles all of them (build/compile-eagerly.cjs).
 * The plugins' own verbs are replaced: nothing here may touch the kernel, a file or the clock of the machine that builds.
 */
export async function prewarm(): Promise<void> {
  const plugins = await Promise.all(PLUGINS.map((entry) => entry.load()));
  // The real one leaves the time in a buffer of Node that the snapshot keeps: no two builds would be identical.
  const { hrtime } = process;
  process.hrtime = Object.assign((): [number, number] => [0, 0], { bigint: () => 0n });
  try {
    for (const [at, entry] of PLUGINS.entries()) rehearse(plugins[at] as Plugin<unknown>, entry);
  } finally {
    process.hrtime = hrtime;
  }
  sha512('');
  const args = splitArgs(pluginNamed('consul-tproxy')?.example.args ?? '');
  const request = args.get('CONSUL_IPTABLES_CONFIG') ?? '';
  decodeRequest('CONSUL_IPTABLES_CONFIG', request, { passwd: () => '', services: () => '' }, () => undefined);
}

function rehearse(plugin: Plugin<unknown>, { example }: PluginEntry): void {
  const silent = (): void => undefined;
  const actor: Plugin<unknown> = { ...plugin, add: () => RESULT, del: silent, check: silent };
  for (const command of ['', 'VERSION', 'ADD', 'CHECK', 'DEL', 'UNKNOWN']) {
    for (const cniVersion of ['0.4.0', '1.0.0', '1.1.0']) {
      const network = { cniVersion, name: 'nomad', type: plugin.name, ...example.config };
      runPlugin(actor, {
        environment: { ...ENVIRONMENT, CNI_COMMAND: command, CNI_ARGS: example.args ?? '' },
        readStdin: () => JSON.stringify({ ...network, prevResult: previous(cniVersion) }),
        isOwnNamespace: () => false,
        configurationOfAdd: () => undefined,
        writeOut: silent,
        writeErr: silent,
      });
    }
  }
}

const ENVIRONMENT = {
  CNI_CONTAINERID: 'b9cb6fb5-bc8a-c3a1-6ff9-5d6d4d4c1f3a',
  CNI_NETNS: '/var/run/netns/b9cb6fb5',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
};

const RESULT: CniResult = {
  interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: '/var/run/netns/b9cb6fb5' }],
  ips: [{ interface: 0, address: '172.26.64.5/20', gateway: '172.26.64.1' }],
  routes: [{ dst: '0.0.0.0/0' }],
  dns: {},
};

function previous(cniVersion: string): object {
  const ips = cniVersion.startsWith('1.') ? RESULT.ips : RESULT.ips.map((ip) => ({ version: '4', ...ip }));
  return { cniVersion, ...RESULT, ips };
}
