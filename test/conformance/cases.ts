import type { PluginName } from '../support/executables.ts';

/**
 * What a good call of each plugin looks like. The record is complete by its type: a new plugin does not compile until it has
 * a case, and every row of the suite then applies to it.
 */
export interface Case {
  /** The plugin's own keys. */
  readonly config: Readonly<Record<string, unknown>>;
  /** CNI_ARGS of ADD and CHECK. */
  readonly args?: string;
  /** Later in a chain: ADD and CHECK need a prevResult and hand it on. */
  readonly chained: boolean;
  /** Depends on CNI_ARGS, and so judges it. */
  readonly readsArgs: boolean;
  /** A member that is refused, and the key that the error must name; loopback has no keys at all. */
  readonly wrong: { readonly config: Readonly<Record<string, unknown>>; readonly key: string } | undefined;
}

const HOST_LOCAL = {
  type: 'host-local',
  dataDir: '/run/conformance',
  ranges: [[{ subnet: '10.99.0.0/24' }], [{ subnet: 'fd99::/64' }]],
  routes: [{ dst: '0.0.0.0/0' }],
};

const CONSUL =
  'IgnoreUnknown=true;NOMAD_JOB_ID=a=b;CONSUL_IPTABLES_CONFIG={"ConsulDNSIP":"10.37.105.17","ConsulDNSPort":8600,' +
  '"ProxyUserID":"101","ProxyInboundPort":25018,"ProxyOutboundPort":15001,"ExcludeInboundPorts":["9001"],' +
  '"ExcludeOutboundPorts":null,"ExcludeOutboundCIDRs":null,"ExcludeUIDs":null,"NetNS":"","IptablesProvider":null}';

const CONSUL_TPROXY: Case = {
  config: { log_level: 'debug' },
  args: CONSUL,
  chained: true,
  readsArgs: true,
  wrong: { config: { ipv6: 'perhaps' }, key: 'ipv6' },
};

export const CASES: Readonly<Record<PluginName, Case>> = {
  loopback: { config: {}, chained: false, readsArgs: false, wrong: undefined },
  bridge: {
    config: { bridge: 'conformance0', isGateway: true, ipam: HOST_LOCAL },
    chained: false,
    readsArgs: true,
    wrong: { config: { isGateway: 'yes' }, key: 'isGateway' },
  },
  'host-local': {
    config: { ipam: HOST_LOCAL },
    chained: false,
    readsArgs: true,
    wrong: { config: { ipam: { ...HOST_LOCAL, ranges: 'all' } }, key: 'ipam.ranges' },
  },
  firewall: {
    config: { backend: 'iptables', iptablesAdminChainName: 'NOMAD-ADMIN' },
    chained: true,
    readsArgs: false,
    wrong: { config: { iptablesAdminChainName: 5 }, key: 'iptablesAdminChainName' },
  },
  portmap: {
    config: { snat: true, runtimeConfig: { portMappings: [] } },
    chained: true,
    readsArgs: false,
    wrong: {
      config: { runtimeConfig: { portMappings: [{ hostPort: '80', containerPort: 80, protocol: 'tcp' }] } },
      key: 'runtimeConfig.portMappings[0].hostPort',
    },
  },
  'consul-tproxy': CONSUL_TPROXY,
  'consul-cni': CONSUL_TPROXY,
};

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
      { name: 'conformance0', mac: '02:00:00:00:00:01' },
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
