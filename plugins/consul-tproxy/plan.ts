import { familyBits, isLoopback, parseAddress } from '../../shared/net/address.ts';
import type { Family, PortRange, Rule, TableName, Target } from '../../shared/packetfilter/ruleset.ts';
import type { TproxyOptions } from './config.ts';
import { CHAINS } from './chains.ts';
import type { ProxyRequest, UidRange } from './request.ts';

/** One table of one family: the plugin's chains with all their rules, and the jumps to them in the built-in chains. */
export interface TablePlan {
  readonly family: Family;
  readonly table: TableName;
  readonly chains: readonly { readonly chain: string; readonly rules: readonly Rule[] }[];
  readonly hooks: readonly { readonly chain: string; readonly rules: readonly Rule[] }[];
}

/**
 * All rules of one allocation, independent of the back end that writes them. Pure: the same request and options give the same plan.
 * A table that is not in the plan must hold none of the plugin's chains.
 */
export function planRules(request: ProxyRequest, options: TproxyOptions): readonly TablePlan[] {
  const families = ['ipv4', 'ipv6'] as const;
  const tables = families.flatMap((family) => [
    planNat(family, request, options),
    planFilter(family, request, options),
  ]);
  return tables.filter(({ chains }) => chains.length > 0);
}

/** Consul's DNS as the rules of one allocation use it. */
export interface DnsPlan {
  /** DNAT cannot change the family of a query. */
  readonly family: Family;
  readonly address: string;
  /** `address` as a network: `10.0.0.1/32`. */
  readonly network: string;
  readonly port: number;
  /** DNAT's target: `10.0.0.1:8600`, `[fd00::1]:8600`, or the address alone where the port stays 53. */
  readonly target: string;
  /** Queries to every server are captured, not only those to `address`. */
  readonly captureAll: boolean;
}

/**
 * Where DNS queries go; undefined when the job has no Consul DNS.
 *
 * - A port without an address stands for the allocation's loopback: ::1 when IPv6 is redirected (consul-cni's dual stack), else 127.0.0.1.
 * - An address without a port captures queries to any server, as consul-cni does; so does `dnsCapture: "all"`, unless the job
 *   excludes port 53.
 */
export function planDns(request: ProxyRequest, options: TproxyOptions): DnsPlan | undefined {
  const { dns } = request;
  if (dns === undefined) return undefined;
  const family = dns.address?.family ?? (options.ipv6 === 'redirect' ? 'ipv6' : 'ipv4');
  const address = dns.address?.text ?? (family === 'ipv6' ? '::1' : '127.0.0.1');
  const host = family === 'ipv6' ? `[${address}]` : address;
  const excluded = request.excludeOutboundPorts.some(({ first, last }) => first <= 53 && last >= 53);
  return {
    family,
    address,
    network: `${address}/${familyBits(family)}`,
    port: dns.port,
    target: dns.port === 0 ? address : `${host}:${dns.port}`,
    captureAll: dns.port === 0 || (options.dnsCapture === 'all' && !excluded),
  };
}

/**
 * The redirects of one family: outbound and inbound TCP to the proxy, DNS to Consul. IPv4 always; IPv6 completely with `ipv6: "redirect"`,
 * else only DNS when Consul's DNS has an IPv6 address.
 */
function planNat(family: Family, request: ProxyRequest, options: TproxyOptions): TablePlan {
  const anyDns = planDns(request, options);
  const dns = anyDns?.family === family ? anyDns : undefined;
  const table = 'nat';
  if (family === 'ipv6' && options.ipv6 !== 'redirect') {
    if (dns === undefined) return { family, table, chains: [], hooks: [] };
    const hooks = [{ chain: 'OUTPUT', rules: dnsJumps(dns) }];
    return { family, table, chains: [dnsChain(dns, family, request)], hooks };
  }
  return {
    family,
    table,
    chains: [
      {
        chain: CHAINS.inbound,
        rules: [
          ...natPortExclusions(request.excludeInboundPorts, options),
          jumping(CHAINS.inboundRedirect, { protocol: 'tcp' }),
        ],
      },
      { chain: CHAINS.inboundRedirect, rules: [redirectTo(request.inboundPort)] },
      { chain: CHAINS.output, rules: natOutputRules(family, request, options, anyDns) },
      { chain: CHAINS.outputRedirect, rules: [redirectTo(request.outboundPort)] },
      // consul-cni creates this chain even when it stays empty.
      dnsChain(dns, family, request),
    ],
    hooks: [
      { chain: 'PREROUTING', rules: [jumping(CHAINS.inbound, { protocol: 'tcp' })] },
      { chain: 'OUTPUT', rules: [...dnsJumps(dns), jumping(CHAINS.output, { protocol: 'tcp' })] },
    ],
  };
}

function redirectTo(port: number): Rule {
  return { protocol: 'tcp', target: { kind: 'redirect', port } };
}

function natOutputRules(
  family: Family,
  request: ProxyRequest,
  options: TproxyOptions,
  dns: DnsPlan | undefined,
): Rule[] {
  return [
    ...insertedOneByOne(request.excludeUids).map((uid) => returning(fromUid(uid))),
    ...insertedOneByOne(request.excludeOutboundCidrs[family]).map((cidr) => returning(toNetwork(cidr))),
    ...natPortExclusions(request.excludeOutboundPorts, options),
    returning(fromUid(request.proxyUid)),
    returning(toNetwork(family === 'ipv4' ? '127.0.0.1/32' : '::1/128')),
    ...(options.exemptions === 'full' ? fullExemptions(family, dns) : []),
    jumping(CHAINS.outputRedirect),
  ];
}

/**
 * What consul-cni lacks: on Nomad Envoy's admin address is 127.0.0.2, resolvers listen on 127.0.0.11 and 127.0.0.53, and a client repeats
 * a query over TCP after a truncated answer, which the proxy does not understand. Queries that are captured need no exemption.
 */
function fullExemptions(family: Family, dns: DnsPlan | undefined): Rule[] {
  const loopback = family === 'ipv4' ? [returning(toNetwork(LOOPBACK.ipv4))] : [];
  const captured = dns?.captureAll === true && dns.family === family;
  return captured ? loopback : [...loopback, returning(toPort('tcp', single(53)))];
}

/** Nomad's port 0 excludes nothing; it becomes a rule only where the rules must equal consul-cni's. */
function natPortExclusions(ports: readonly PortRange[], options: TproxyOptions): Rule[] {
  const kept = ports.filter(({ last }) => last > 0 || options.exemptions === 'consul');
  return insertedOneByOne(kept).map((range) => returning(toPort('tcp', range)));
}

const LOOPBACK = { ipv4: '127.0.0.0/8', ipv6: '::1/128' } as const;
const DNS_PROTOCOLS = ['udp', 'tcp'] as const;

/** These jumps precede the proxy's, so that DNS over TCP does not reach the proxy. They apply to the proxy's own queries, too. */
function dnsJumps(dns: DnsPlan | undefined): Rule[] {
  return DNS_PROTOCOLS.flatMap((protocol) =>
    dns === undefined ? [] : [jumping(CHAINS.dns, capturedQueries(dns, protocol))],
  );
}

function capturedQueries(dns: DnsPlan, protocol: 'udp' | 'tcp'): Conditions {
  return dns.captureAll ? toPort(protocol, single(53)) : toPortOf(dns.network, protocol, 53);
}

function dnsChain(
  dns: DnsPlan | undefined,
  family: Family,
  request: ProxyRequest,
): TablePlan['chains'][number] {
  if (dns === undefined) return { chain: CHAINS.dns, rules: [] };
  const toConsul = (conditions: Conditions): Rule => ({
    ...conditions,
    target: { kind: 'dnat', to: dns.target },
  });
  const captured = DNS_PROTOCOLS.map((protocol) => toConsul(capturedQueries(dns, protocol)));
  if (!dns.captureAll || dns.port === 0) return { chain: CHAINS.dns, rules: captured };
  // `dnsCapture: "all"` is the operator's choice; the job's exclusions and a resolver that runs as the proxy's user are exempt from it.
  // So are servers on loopback: a stub resolver there sends queries of its own, which are captured then.
  const own = DNS_PROTOCOLS.map((protocol) => toConsul(toPortOf(dns.network, protocol, 53)));
  const exempt = [
    ...[...request.excludeUids, request.proxyUid].map((uid) => returning(fromUid(uid))),
    ...request.excludeOutboundCidrs[family].map((cidr) => returning(toNetwork(cidr))),
    ...(isOnLoopback(dns) ? [] : [returning(toNetwork(LOOPBACK[family]))]),
  ];
  return { chain: CHAINS.dns, rules: [...own, ...exempt, ...captured] };
}

function isOnLoopback({ address }: DnsPlan): boolean {
  const parsed = parseAddress(address);
  return parsed !== undefined && isLoopback(parsed);
}

/**
 * The refusals of one family: TCP over IPv6 that would bypass the proxy (`ipv6: "reject"`), outbound UDP (`udp: "reject"`), and DNS of the
 * family that Consul's DNS does not have, when all DNS is captured. They answer with a reset or an ICMP error, so that programs
 * switch to IPv4 or fail at once instead of waiting.
 */
function planFilter(family: Family, request: ProxyRequest, options: TproxyOptions): TablePlan {
  const refusals = refusalsFor(family, request, options);
  const outbound = outboundJumps(refusals);
  const chains =
    outbound.length === 0
      ? []
      : [{ chain: CHAINS.rejectOut, rules: rejectOutRules(family, request, refusals, options) }];
  const hooks = outbound.length === 0 ? [] : [{ chain: 'OUTPUT', rules: outbound }];
  if (!refusals.tcp) return { family, table: 'filter', chains, hooks };
  return {
    family,
    table: 'filter',
    chains: [...chains, { chain: CHAINS.rejectIn, rules: rejectInRules(request) }],
    hooks: [...hooks, { chain: 'INPUT', rules: [jumpingForNew(CHAINS.rejectIn, { protocol: 'tcp' })] }],
  };
}

interface Refusals {
  readonly tcp: boolean;
  readonly udp: boolean;
  /** Queries that cannot be redirected to Consul because they are of the other family. */
  readonly otherFamilyDns: boolean;
  /** Consul's DNS, when it is of this family. */
  readonly dns: DnsPlan | undefined;
}

function refusalsFor(family: Family, request: ProxyRequest, options: TproxyOptions): Refusals {
  const dns = planDns(request, options);
  const bypassed = family === 'ipv6' && options.ipv6 === 'bypass';
  return {
    tcp: family === 'ipv6' && options.ipv6 === 'reject',
    udp: options.udp === 'reject' && !bypassed,
    // consul-cni's own form of capturing everything (port 0) leaves the other family alone.
    otherFamilyDns:
      !bypassed && dns !== undefined && dns.captureAll && dns.port !== 0 && dns.family !== family,
    dns: dns?.family === family ? dns : undefined,
  };
}

function outboundJumps({ tcp, udp, otherFamilyDns }: Refusals): Rule[] {
  const queries = (protocol: 'tcp' | 'udp') => jumpingForNew(CHAINS.rejectOut, toPort(protocol, single(53)));
  const all = (protocol: 'tcp' | 'udp') => jumpingForNew(CHAINS.rejectOut, { protocol });
  const tcpJumps = tcp ? [all('tcp')] : otherFamilyDns ? [queries('tcp')] : [];
  const udpJumps = udp ? [all('udp')] : otherFamilyDns ? [queries('udp')] : [];
  return [...tcpJumps, ...udpJumps];
}

/**
 * Only for packets that open a connection. nat chains see no others, but filter chains see every packet: replies from an excluded inbound
 * port must pass, and a packet that conntrack calls INVALID must not reset an established connection.
 */
function jumpingForNew(chain: string, conditions: Conditions): Rule {
  const isNew = { kind: 'conntrack', states: ['NEW'] } as const;
  return jumping(chain, { ...conditions, matches: [...(conditions.matches ?? []), isNew] });
}

/** Exemptions, then refusals. Destinations are those after nat: Consul's DNS has its real port here. */
function rejectOutRules(
  family: Family,
  request: ProxyRequest,
  refusals: Refusals,
  options: TproxyOptions,
): Rule[] {
  const { tcp, udp, otherFamilyDns, dns } = refusals;
  const protocols = [
    ...(tcp || otherFamilyDns ? (['tcp'] as const) : []),
    ...(udp || otherFamilyDns ? (['udp'] as const) : []),
  ];
  const toConsul =
    dns === undefined ? [] : protocols.map((protocol) => toPortOf(dns.network, protocol, dns.port || 53));
  const queries =
    otherFamilyDns || dns?.captureAll === true
      ? []
      : protocols.map((protocol) => toPort(protocol, single(53)));
  return [
    returning(fromUid(request.proxyUid)),
    ...insertedOneByOne(request.excludeUids).map((uid) => returning(fromUid(uid))),
    returning(toNetwork(LOOPBACK[family])),
    // UDP to the allocation's own address stays inside; TCP to it goes to the proxy on IPv4.
    ...(udp ? [returning({ outInterface: { value: 'lo' }, protocol: 'udp' as const })] : []),
    ...insertedOneByOne(request.excludeOutboundCidrs[family]).map((cidr) => returning(toNetwork(cidr))),
    ...protocols.flatMap((protocol) => filterPortExclusions(protocol, request.excludeOutboundPorts)),
    ...toConsul.map(returning),
    ...queries.filter(({ protocol }) => protocol === 'udp' || options.exemptions === 'full').map(returning),
    ...(protocols.includes('tcp') ? [TCP_RESET] : []),
    ...(protocols.includes('udp') ? [portUnreachable(family)] : []),
  ];
}

/** The proxy's inbound port stays open: a connection to it does not bypass the proxy (Envoy may listen on `::`). */
function rejectInRules(request: ProxyRequest): Rule[] {
  return [
    returning({ inInterface: { value: 'lo' } }),
    ...filterPortExclusions('tcp', request.excludeInboundPorts),
    returning(toPort('tcp', single(request.inboundPort))),
    TCP_RESET,
  ];
}

const TCP_RESET: Rule = { protocol: 'tcp', target: { kind: 'reject', with: 'tcp-reset' } };

function portUnreachable(family: Family): Rule {
  const answer = family === 'ipv4' ? 'icmp-port-unreachable' : 'icmp6-port-unreachable';
  return { protocol: 'udp', target: { kind: 'reject', with: answer } };
}

function filterPortExclusions(protocol: 'tcp' | 'udp', ports: readonly PortRange[]): Rule[] {
  return insertedOneByOne(ports.filter(({ last }) => last > 0)).map((range) =>
    returning(toPort(protocol, range)),
  );
}

/** A rule without its target. */
type Conditions = Omit<Rule, 'target'>;

const RETURN: Target = { kind: 'return' };

export function returning(conditions: Conditions): Rule {
  return { ...conditions, target: RETURN };
}

export function jumping(chain: string, conditions: Conditions = {}): Rule {
  return { ...conditions, target: { kind: 'jump', chain } };
}

export function fromUid({ first, last }: UidRange): Conditions {
  return { matches: [{ kind: 'owner', uid: { first, last } }] };
}

/** No condition for a /0: iptables prints none for it. */
function toNetwork(cidr: string): Conditions {
  return cidr.endsWith('/0') ? {} : { destination: { value: cidr } };
}

function toPort(protocol: 'tcp' | 'udp', destinationPort: PortRange): Conditions {
  return { protocol, matches: [{ kind: 'port', destinationPort }] };
}

function toPortOf(network: string, protocol: 'tcp' | 'udp', port: number): Conditions {
  return { destination: { value: network }, ...toPort(protocol, single(port)) };
}

function single(port: number): PortRange {
  return { first: port, last: port };
}

/** consul-cni inserts each exclusion at the head of its chain, so the last one given comes first. */
function insertedOneByOne<Entry>(entries: readonly Entry[]): Entry[] {
  return [...entries].reverse();
}
