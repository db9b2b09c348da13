import { PLUGIN_NAMES, pluginNamed, type PluginName } from '../../plugins/index.ts';

/** What a good call of each plugin looks like. */
export interface Case {
  /** The plugin's own keys. */
  readonly config: Readonly<Record<string, unknown>>;
  /** CNI_ARGS of ADD and CHECK. */
  readonly args?: string | undefined;
  /** Later in a chain: ADD and CHECK need a prevResult and hand it on. */
  readonly chained: boolean;
  /** Depends on CNI_ARGS, and so judges it. */
  readonly readsArgs: boolean;
  /** A member that is refused, and the key that the error must name; loopback has no keys at all. */
  readonly wrong: { readonly config: Readonly<Record<string, unknown>>; readonly key: string } | undefined;
}

const { ipam } = pluginNamed('bridge')?.example.config ?? {};

/** Beyond the plugin's example. Complete by its type: a new plugin does not compile until it has an entry here. */
const FACTS: Readonly<Record<PluginName, Omit<Case, 'config' | 'args'>>> = {
  loopback: { chained: false, readsArgs: false, wrong: undefined },
  bridge: {
    chained: false,
    readsArgs: true,
    wrong: { config: { isGateway: 'yes' }, key: 'isGateway' },
  },
  'host-local': {
    chained: false,
    readsArgs: true,
    wrong: { config: { ipam: { ...(ipam as object), ranges: 'all' } }, key: 'ipam.ranges' },
  },
  firewall: {
    chained: true,
    readsArgs: false,
    wrong: { config: { iptablesAdminChainName: 5 }, key: 'iptablesAdminChainName' },
  },
  portmap: {
    chained: true,
    readsArgs: false,
    wrong: {
      config: { runtimeConfig: { portMappings: [{ hostPort: '80', containerPort: 80, protocol: 'tcp' }] } },
      key: 'runtimeConfig.portMappings[0].hostPort',
    },
  },
  'consul-tproxy': { chained: true, readsArgs: true, wrong: { config: { ipv6: 'perhaps' }, key: 'ipv6' } },
  'consul-cni': { chained: true, readsArgs: true, wrong: { config: { ipv6: 'perhaps' }, key: 'ipv6' } },
};

export const CASES = Object.fromEntries(
  PLUGIN_NAMES.map((name) => [name, { ...pluginNamed(name)?.example, ...FACTS[name] }]),
) as Readonly<Record<PluginName, Case>>;

/** What the plugins before a chained one left behind, in the shape of `version`. */
export function previousResult(version: string, netns: string): object {
  const dns = { nameservers: ['10.0.0.53'], search: ['example.com'] };
  if (/^0\.[12]/.test(version)) {
    return {
      cniVersion: version,
      ip4: { ip: '10.98.0.5/24', gateway: '10.98.0.1', routes: [{ dst: '0.0.0.0/0', gw: '10.98.0.1' }] },
      dns,
    };
  }
  const newest = version.startsWith('1');
  const container = { name: 'eth0', mac: '02:00:00:00:00:02', sandbox: netns };
  return {
    cniVersion: version,
    interfaces: [
      { name: 'nomad', mac: '02:00:00:00:00:01' },
      newest ? { ...container, mtu: 1450 } : container,
    ],
    ips: [
      { ...(newest ? {} : { version: '4' }), interface: 1, address: '10.98.0.5/24', gateway: '10.98.0.1' },
    ],
    routes: [
      { dst: '0.0.0.0/0', gw: '10.98.0.1', mtu: 1400, advmss: 1360, priority: 7, table: 254, scope: 0 },
    ],
    dns,
  };
}
