import type { Plugin } from '../shared/cni/plugin.ts';
import type { TracesRole } from '../shared/attachments/leftover.ts';
import type { DesiredRole } from '../shared/packetfilter/desired.ts';

/** One plugin of the suite. */
export interface PluginEntry {
  readonly name: string;
  /** Further names under which a runtime may call it. */
  readonly aliases?: readonly string[];
  /** Loads the plugin's code: nothing of a plugin is evaluated before it is called. */
  readonly load: () => Promise<Plugin<unknown>>;
  /** Of plugins that set up something on the host which repair restores. */
  readonly desired?: () => Promise<DesiredRole>;
  /** Of plugins that make something on the host which names its container. */
  readonly traces?: () => Promise<TracesRole>;
  /** The plugin's own keys as Nomad's network list has them, and CNI_ARGS where the plugin needs them. */
  readonly example: { readonly config: Readonly<Record<string, unknown>>; readonly args?: string };
}

const NOMAD_IPAM = {
  type: 'host-local',
  ranges: [[{ subnet: '172.26.64.0/20' }], [{ subnet: 'fd00::/64' }]],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
  dataDir: '/var/run/cni',
};

/** As Nomad writes it for a group with `transparent_proxy`. */
const PROXY_CONFIG = {
  ConsulDNSIP: '192.0.2.1',
  ConsulDNSPort: 8600,
  ProxyUserID: '101',
  ProxyInboundPort: 20000,
  ProxyOutboundPort: 15001,
  ExcludeInboundPorts: ['9002'],
  ExcludeOutboundPorts: null,
  ExcludeOutboundCIDRs: ['10.0.0.0/8', 'fd00::/8'],
  ExcludeUIDs: ['200-210'],
  NetNS: '/var/run/netns/x',
  IptablesProvider: null,
};

/**
 * The plugins of the suite: the only list of them. The names in dist/bin, the dispatch by name, what the start-up snapshot
 * contains, and the conformance tests follow from it.
 */
export const PLUGINS = [
  {
    name: 'loopback',
    load: async () => (await import('./loopback/plugin.ts')).plugin,
    example: { config: {} },
  },
  {
    name: 'bridge',
    load: async () => (await import('./bridge/plugin.ts')).plugin,
    desired: async () => import('./bridge/desired.ts'),
    traces: async () => import('./bridge/traces.ts'),
    example: {
      config: {
        bridge: 'nomad',
        ipMasq: true,
        isGateway: true,
        forceAddress: true,
        hairpinMode: false,
        ipam: NOMAD_IPAM,
      },
    },
  },
  {
    name: 'host-local',
    load: async () => (await import('./host-local/plugin.ts')).plugin,
    example: { config: { ipam: NOMAD_IPAM } },
  },
  {
    name: 'firewall',
    load: async () => (await import('./firewall/plugin.ts')).plugin,
    desired: async () => import('./firewall/desired.ts'),
    traces: async () => import('./firewall/traces.ts'),
    example: { config: { backend: 'iptables', iptablesAdminChainName: 'NOMAD-ADMIN' } },
  },
  {
    name: 'portmap',
    load: async () => (await import('./portmap/plugin.ts')).plugin,
    desired: async () => import('./portmap/desired.ts'),
    traces: async () => import('./portmap/traces.ts'),
    example: {
      config: {
        snat: true,
        capabilities: { portMappings: true },
        runtimeConfig: {
          portMappings: ['tcp', 'udp'].map((Protocol) => ({
            HostPort: 9002,
            ContainerPort: 9002,
            Protocol,
            HostIP: '',
          })),
        },
      },
    },
  },
  {
    name: 'consul-tproxy',
    aliases: ['consul-cni'],
    load: async () => (await import('./consul-tproxy/plugin.ts')).plugin,
    traces: async () => import('./consul-tproxy/traces.ts'),
    example: {
      config: { log_level: 'debug' },
      args: `IgnoreUnknown=true;CONSUL_IPTABLES_CONFIG=${JSON.stringify(PROXY_CONFIG)}`,
    },
  },
] as const satisfies readonly PluginEntry[];

type Listed = (typeof PLUGINS)[number];
export type PluginName = Listed['name'] | Extract<Listed, { aliases: unknown }>['aliases'][number];

/** Every name under which a runtime may call a plugin. */
export const PLUGIN_NAMES = PLUGINS.flatMap(namesOf) as readonly PluginName[];

/** The plugin that answers to `name`, undefined for any other name. */
export function pluginNamed(name: string): PluginEntry | undefined {
  return PLUGINS.find((entry: PluginEntry) => namesOf(entry).includes(name));
}

function namesOf({ name, aliases = [] }: PluginEntry): string[] {
  return [name, ...aliases];
}
