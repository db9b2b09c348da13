import { randomInt, randomUUID } from 'node:crypto';
import { type Attachment, bothProtocols } from '../../conflist/attachment.ts';
import { type NetworkList, parseNetworkList } from '../../conflist/network-list.ts';
import type { HostFacts } from './host.ts';
import { DNS_PORT, type Options } from './options.ts';
import { readAsset } from '../../shared/assets.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import {
  type Cidr,
  containsAddress,
  firstAddress,
  formatAddress,
  formatCidr,
  nextAddress,
  overlaps,
  parseAddress,
  parseCidr,
} from '../../shared/net/address.ts';

/** Names of everything that the example creates on a host. */
export const NAMES = {
  bridge: 'weft-demo0',
  network: 'weft-countdash',
  namespaces: 'weft-demo-',
  /** Leases, cached results and the note of what is being done; on tmpfs, so that a reboot forgets it with the rest. */
  folder: '/run/weft-countdash',
} as const;

/** Everything about the example, decided before anything is created. */
export interface Plan {
  readonly options: Options;
  readonly subnets: readonly string[];
  /** First address of the IPv4 subnet: the bridge's. */
  readonly gateway: string;
  /** Address of this host for other machines; the bridge's address when there is no other. */
  readonly hostAddress: string;
  readonly api: Group;
  readonly dashboard: Group;
  /** Simulated Consul DNS; undefined without transparent proxy. */
  readonly dns: ConsulDns | undefined;
  readonly recursors: readonly string[];
  readonly countingUrl: string;
}

export const APP_PORTS = { api: 9001, dashboard: 9002 } as const;
export const UPSTREAM_PORT = 8080;
/** Nomad's range for ports that a job leaves to it. */
const DYNAMIC_PORTS = { first: 20_000, last: 32_000 } as const;

/** @param isFree whether a port of this host is unused */
export function makePlan(options: Options, host: HostFacts, isFree: (port: number) => boolean): Plan {
  const reserved = [...host.recursors, ...(host.address === undefined ? [] : [host.address])];
  const families = options.dualStack ? (['ipv4', 'ipv6'] as const) : (['ipv4'] as const);
  const subnets = families.map((family) => chooseSubnet(family, host.routes, reserved));
  const gateway = gatewayOf(subnets[0] ?? '');
  const apiProxy = dynamicPort((port) => isFree(port) && port !== options.port);
  const dashboardProxy = dynamicPort((port) => isFree(port) && port !== options.port && port !== apiProxy);
  return {
    options,
    subnets,
    gateway,
    hostAddress: host.address ?? gateway,
    api: group('api', 'count-api', APP_PORTS.api, apiProxy, '240.0.0.1'),
    dashboard: {
      ...group('dashboard', 'count-dashboard', APP_PORTS.dashboard, dashboardProxy, '240.0.0.2'),
      ports: [
        { label: 'http', host: options.port, to: APP_PORTS.dashboard, reserved: true },
        proxyPortOf('count-dashboard', dashboardProxy),
      ],
    },
    dns: options.upstreams ? undefined : { address: gateway, port: DNS_PORT },
    recursors: host.recursors,
    countingUrl: options.upstreams ? `http://127.0.0.1:${UPSTREAM_PORT}` : 'http://count-api.virtual.consul',
  };
}

export function groupsOf({ api, dashboard }: Plan): [Group, Group] {
  return [api, dashboard];
}

function group(
  name: string,
  service: string,
  appPort: number,
  proxyPort: number,
  virtualAddress: string,
): Group {
  return {
    name,
    service,
    allocId: randomUUID(),
    netns: `${NAMES.namespaces}${name}`,
    ports: [proxyPortOf(service, proxyPort)],
    appPort,
    proxyPort,
    virtualAddress,
  };
}

/** `to = -1`: the same number inside, which is also where the sidecar listens. */
function proxyPortOf(service: string, port: number): Group['ports'][number] {
  return { label: `connect-proxy-${service}`, host: port, to: port, reserved: false };
}

function dynamicPort(isFree: (port: number) => boolean): number {
  const size = DYNAMIC_PORTS.last - DYNAMIC_PORTS.first;
  const start = randomInt(size);
  for (let step = 0; step < size; step += 1) {
    const port = DYNAMIC_PORTS.first + ((start + step) % size);
    if (isFree(port)) return port;
  }
  throw new Error(`every port from ${DYNAMIC_PORTS.first} to ${DYNAMIC_PORTS.last} is taken`);
}

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

/** nobody:nogroup. The groups' programs and the DNS server need no privileges. */
export const APP_UID = 65534;

/** Defaults of Nomad's client for node metadata. */
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

/** Nomad calls DEL without CNI_ARGS. */
export function nomadRemoval(attachment: Attachment): Attachment {
  return { ...attachment, args: [] };
}

/** The structure that Nomad writes into CNI_ARGS, keys in its order, unset lists as null. */
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

/** Nomad keeps them in a Go map: the order is random. */
function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, weight: Math.random() }))
    .sort((one, other) => one.weight - other.weight)
    .map(({ item }) => item);
}

/** Rarely used private networks, without Nomad's default (172.26.64.0/20), so that both can run on one host. */
const IPV4_CANDIDATES = [
  ...range(256).map((third) => `172.27.${(third + 90) % 256}.0/24`),
  ...range(256).map((third) => `10.231.${third}.0/24`),
  ...range(256).map((third) => `192.168.${255 - third}.0/24`),
];
const IPV6_CANDIDATES = range(256).map((fourth) => `fd77:6566:74de:${fourth.toString(16)}::/64`);

/**
 * The first candidate that overlaps no route of the host and holds no address that must stay reachable.
 * @param routes destinations of the host's routes; the default route and what is no CIDR do not count
 * @param reserved addresses that the host talks to: its own, its name servers
 */
export function chooseSubnet(
  family: 'ipv4' | 'ipv6',
  routes: readonly string[],
  reserved: readonly string[],
): string {
  const taken = routes.map(asCidr).filter((cidr) => cidr !== undefined && cidr.prefix > 0) as Cidr[];
  const addresses = reserved.map(parseAddress).filter((address) => address !== undefined);
  const candidates = (family === 'ipv4' ? IPV4_CANDIDATES : IPV6_CANDIDATES).map(
    (text) => parseCidr(text) as Cidr,
  );
  const free = candidates.find(
    (candidate) =>
      !taken.some((other) => overlaps(candidate, other)) &&
      !addresses.some((address) => containsAddress(candidate, address)),
  );
  if (free !== undefined) return formatCidr(free);
  throw new CniError(
    CniCode.IoFailure,
    `no ${family} subnet is free for the example: every candidate overlaps a route of this host`,
    {
      details: 'list the routes: ip route show table all',
    },
  );
}

/** The address that host-local leaves to the bridge: the first of the subnet. */
export function gatewayOf(subnet: string): string {
  const cidr = parseCidr(subnet);
  const gateway = cidr === undefined ? undefined : nextAddress(firstAddress(cidr));
  if (gateway === undefined) throw new TypeError(`"${subnet}" is no subnet`);
  return formatAddress(gateway);
}

function asCidr(text: string): Cidr | undefined {
  if (text.includes('/')) return parseCidr(text);
  const address = parseAddress(text);
  return address === undefined ? undefined : { address, prefix: address.family === 'ipv4' ? 32 : 128 };
}

function range(length: number): number[] {
  return Array.from({ length }, (_, index) => index);
}

/**
 * Nomad's network list with only the network's name, the bridge's name, the subnets and the lease folder changed: all that an
 * operator may set in Nomad's configuration, and two that keep the example apart from a Nomad on the same host. A backend that the
 * user names is put where /etc/weft/weft.json would put it.
 * @param subnets one, or an IPv4 and an IPv6 one
 */
export function exampleList(
  subnets: readonly string[],
  { upstreams, backend }: Pick<Options, 'upstreams' | 'backend'>,
): NetworkList {
  const file = `conflist/${upstreams ? 'nomad' : 'nomad-tproxy'}.conflist`;
  const document = JSON.parse(readAsset(file)) as { name: string; plugins: ListedPlugin[] };
  document.name = NAMES.network;
  for (const plugin of document.plugins.filter(({ type }) => type === 'bridge')) {
    plugin.bridge = NAMES.bridge;
    if (plugin.ipam === undefined) continue;
    plugin.ipam.ranges = subnets.map((subnet) => [{ subnet }]);
    plugin.ipam.routes = subnets.map((subnet) => ({ dst: subnet.includes(':') ? '::/0' : '0.0.0.0/0' }));
    plugin.ipam.dataDir = `${NAMES.folder}/leases`;
  }
  if (backend !== undefined) for (const plugin of document.plugins) chooseBackend(plugin, backend);
  return parseNetworkList(JSON.stringify(document, null, '\t'), "the example's network list");
}

interface ListedPlugin {
  readonly type: string;
  bridge?: string;
  backend?: string;
  ipMasqBackend?: string;
  readonly ipam?: { ranges: unknown; routes: unknown; dataDir: string };
}

/** Where the list names one itself, for firewall, it stays: Nomad's own chain is in iptables, whatever the node prefers. */
function chooseBackend(plugin: ListedPlugin, backend: string): void {
  if (plugin.type === 'bridge') plugin.ipMasqBackend = backend;
  else if (plugin.type !== 'loopback') plugin.backend ??= backend;
}
