import { plugin as bridge } from '../plugins/bridge/plugin.ts';
import { plugin as consulTproxy } from '../plugins/consul-tproxy/plugin.ts';
import { decodeRequest } from '../plugins/consul-tproxy/decode-request.ts';
import { plugin as firewall } from '../plugins/firewall/plugin.ts';
import { plugin as hostLocal } from '../plugins/host-local/plugin.ts';
import { plugin as loopback } from '../plugins/loopback/plugin.ts';
import { plugin as portmap } from '../plugins/portmap/plugin.ts';
import type { Plugin } from '../shared/cni/plugin.ts';
import { runPlugin } from '../shared/cni/protocol.ts';
import { sha512 } from '../shared/cni/sha512.ts';
import type { CniResult } from '../shared/cni/types.ts';

/**
 * Loads every plugin and goes once through what each call goes through (environment, configuration, result, error), while the snapshot
 * is built: the modules, tables and the parsers that zod generates at the first use of a schema are then in the snapshot, and no start pays
 * for them. Functions need no rehearsal, the build compiles all of them (build/compile-eagerly.cjs).
 * The plugins' own verbs are replaced: nothing here may touch the kernel, a file or the clock of the machine that builds.
 */
export function prewarm(): void {
  for (const rehearse of REHEARSALS) rehearse();
  sha512('');
  decodeRequest(
    'CONSUL_IPTABLES_CONFIG',
    PROXY_CONFIG,
    { passwd: () => '', services: () => '' },
    () => undefined,
  );
}

/** Nomad's own network list, as each plugin sees its part of it. */
const REHEARSALS: readonly (() => void)[] = [
  rehearsal(loopback, { type: 'loopback' }),
  rehearsal(bridge, {
    type: 'bridge',
    bridge: 'nomad',
    ipMasq: true,
    isGateway: true,
    forceAddress: true,
    hairpinMode: false,
    ipam: ipam(),
  }),
  rehearsal(hostLocal, { type: 'bridge', ipam: ipam() }),
  rehearsal(firewall, { type: 'firewall', backend: 'iptables', iptablesAdminChainName: 'NOMAD-ADMIN' }),
  rehearsal(portmap, {
    type: 'portmap',
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
  }),
  rehearsal(consulTproxy, { type: 'consul-cni', log_level: 'debug' }),
];

function ipam(): object {
  return {
    type: 'host-local',
    ranges: [[{ subnet: '172.26.64.0/20' }], [{ subnet: 'fd00::/64' }]],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
    dataDir: '/var/run/cni',
  };
}

function rehearsal<Config>(plugin: Plugin<Config>, own: object): () => void {
  const silent = (): void => undefined;
  const actor: Plugin<Config> = { ...plugin, add: () => RESULT, del: silent, check: silent };
  const perform = (cniVersion: string, command: string): number =>
    runPlugin(actor, {
      environment: { ...ENVIRONMENT, CNI_COMMAND: command },
      readStdin: () =>
        JSON.stringify({ cniVersion, name: 'nomad', ...own, prevResult: previous(cniVersion) }),
      isOwnNamespace: () => false,
      writeOut: silent,
      writeErr: silent,
    });
  return () => {
    for (const command of ['', 'VERSION', 'ADD', 'CHECK', 'DEL', 'UNKNOWN']) {
      for (const cniVersion of ['0.4.0', '1.0.0', '1.1.0']) perform(cniVersion, command);
    }
  };
}

/** As Nomad writes it. */
const PROXY_CONFIG = JSON.stringify({
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
});

const ENVIRONMENT = {
  CNI_CONTAINERID: 'b9cb6fb5-bc8a-c3a1-6ff9-5d6d4d4c1f3a',
  CNI_NETNS: '/var/run/netns/b9cb6fb5',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
  CNI_ARGS: `IgnoreUnknown=true;CONSUL_IPTABLES_CONFIG=${PROXY_CONFIG}`,
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
