import type { Attachment } from '../../conflist/attachment.ts';
import { bothProtocols } from '../../conflist/port-mapping.ts';

/** A port of a group's network block. */
export interface GroupPort {
  readonly label: string;
  readonly host: number;
  readonly to: number;
  /** `static = ...`: Nomad then keeps the port out of the inbound redirect. */
  readonly reserved: boolean;
}

/** One group of the job, with what Nomad would have chosen for its allocation. */
export interface Group {
  readonly name: string;
  readonly service: string;
  readonly allocId: string;
  /** Name, not path. */
  readonly netns: string;
  readonly ports: readonly GroupPort[];
  readonly appPort: number;
  /** The port of label `connect-proxy-<service>`. */
  readonly proxyPort: number;
  readonly virtualAddress: string;
}

export interface ConsulDns {
  readonly address: string;
  readonly port: number;
}

/** Node meta that Nomad's client takes by default. */
export const PROXY_UID = 101;
export const PROXY_OUTBOUND_PORT = 15001;

/**
 * A group's attachment as Nomad's client asks for it: CNI_ARGS with the job's names and, under transparent proxy, the rules
 * wanted; each port mapped twice under capitalised keys.
 */
export function nomadAttachment(group: Group, transparent: ConsulDns | undefined): Attachment {
  return {
    containerId: group.allocId,
    netns: namespacePath(group.netns),
    ifname: 'eth0',
    args: shuffled([
      ['IgnoreUnknown', 'true'],
      ['NOMAD_REGION', 'global'],
      ['NOMAD_NAMESPACE', 'default'],
      ['NOMAD_JOB_ID', 'countdash'],
      ['NOMAD_GROUP_NAME', group.name],
      ['NOMAD_ALLOC_ID', group.allocId],
      ...(transparent === undefined
        ? []
        : [['CONSUL_IPTABLES_CONFIG', iptablesConfig(group, transparent)] as const]),
    ]),
    capabilityArgs: {
      portMappings: group.ports.flatMap(({ host, to }) =>
        bothProtocols({ HostPort: host, ContainerPort: to, HostIP: '' }),
      ),
    },
  };
}

/** DEL comes without CNI_ARGS. */
export function nomadRemoval(attachment: Attachment): Attachment {
  return { ...attachment, args: [] };
}

/** The structure that Nomad writes into CNI_ARGS, keys in its order, lists that nobody set as null. */
export function iptablesConfig(group: Group, dns: ConsulDns): string {
  const reserved = group.ports.filter(({ reserved }) => reserved).map(({ to }) => String(to));
  return JSON.stringify({
    ConsulDNSIP: dns.address,
    ConsulDNSPort: dns.port,
    ProxyUserID: String(PROXY_UID),
    ProxyInboundPort: group.proxyPort,
    ProxyOutboundPort: PROXY_OUTBOUND_PORT,
    ExcludeInboundPorts: reserved.length === 0 ? null : [...new Set(reserved)].sort(),
    ExcludeOutboundPorts: null,
    ExcludeOutboundCIDRs: null,
    ExcludeUIDs: null,
    NetNS: namespacePath(group.netns),
    IptablesProvider: null,
  });
}

export function namespacePath(name: string): string {
  return `/var/run/netns/${name}`;
}

/** Nomad keeps them in a Go map, whose order is random: nobody may depend on it. */
function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, weight: Math.random() }))
    .sort((one, other) => one.weight - other.weight)
    .map(({ item }) => item);
}
