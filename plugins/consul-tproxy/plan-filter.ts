import type { Family, PortRange, Rule } from '../../shared/packetfilter/ruleset.ts';
import { planDns, type DnsPlan } from './dns-plan.ts';
import { CHAINS } from './names.ts';
import type { TproxyOptions } from './options.ts';
import type { TablePlan } from './plan.ts';
import type { ProxyRequest } from './request.ts';
import {
  fromUid,
  insertedOneByOne,
  jumping,
  returning,
  single,
  toNetwork,
  toPort,
  toPortOf,
} from './rules.ts';

/**
 * The refusals of one family: TCP over IPv6 that would go around the proxy (`ipv6: "reject"`), UDP that leaves (`udp: "reject"`), and DNS
 * of the family that Consul's DNS is not of, when all DNS shall go there (it cannot be handed from one family to the other).
 * Refused with an answer, so that programs turn to IPv4 or give up at once instead of waiting.
 */
export function planFilter(family: Family, request: ProxyRequest, options: TproxyOptions): TablePlan {
  const refusals = refusalsFor(family, request, options);
  const outbound = outboundHooks(refusals);
  const chains =
    outbound.length === 0
      ? []
      : [{ chain: CHAINS.rejectOut, rules: outboundRules(family, request, refusals, options) }];
  const hooks = outbound.length === 0 ? [] : [{ chain: 'OUTPUT', rules: outbound }];
  if (!refusals.tcp) return { family, table: 'filter', chains, hooks };
  return {
    family,
    table: 'filter',
    chains: [...chains, { chain: CHAINS.rejectIn, rules: inboundRules(request) }],
    hooks: [...hooks, { chain: 'INPUT', rules: [newOnly(CHAINS.rejectIn, { protocol: 'tcp' })] }],
  };
}

interface Refusals {
  readonly tcp: boolean;
  readonly udp: boolean;
  /** Queries that cannot be handed to Consul because they are of the other family. */
  readonly strayDns: boolean;
  /** Consul's DNS, when it is of this family. */
  readonly dns: DnsPlan | undefined;
}

function refusalsFor(family: Family, request: ProxyRequest, options: TproxyOptions): Refusals {
  const dns = planDns(request, options);
  const bypassed = family === 'ipv6' && options.ipv6 === 'bypass';
  return {
    tcp: family === 'ipv6' && options.ipv6 === 'reject',
    udp: options.udp === 'reject' && !bypassed,
    // Upstream's own form of capturing everything (port 0) has no say over the other family.
    strayDns: !bypassed && dns !== undefined && dns.captureAll && dns.port !== 0 && dns.family !== family,
    dns: dns?.family === family ? dns : undefined,
  };
}

function outboundHooks({ tcp, udp, strayDns }: Refusals): Rule[] {
  const queries = (protocol: 'tcp' | 'udp') => newOnly(CHAINS.rejectOut, toPort(protocol, single(53)));
  const all = (protocol: 'tcp' | 'udp') => newOnly(CHAINS.rejectOut, { protocol });
  const tcpHook = tcp ? [all('tcp')] : strayDns ? [queries('tcp')] : [];
  const udpHook = udp ? [all('udp')] : strayDns ? [queries('udp')] : [];
  return [...tcpHook, ...udpHook];
}

/**
 * Only what opens a connection is looked at. nat sees no more than that, but filter sees every packet: answers of an excluded inbound port
 * must leave, and a stray packet that conntrack calls INVALID must not have its good connection reset.
 */
function newOnly(chain: string, body: Omit<Rule, 'target'>): Rule {
  const isNew = { kind: 'conntrack', states: ['NEW'] } as const;
  return jumping(chain, { ...body, matches: [...(body.matches ?? []), isNew] });
}

/** What is allowed, then the refusals. Destinations are those after nat: Consul's DNS is met at its real port. */
function outboundRules(
  family: Family,
  request: ProxyRequest,
  refusals: Refusals,
  options: TproxyOptions,
): Rule[] {
  const { tcp, udp, strayDns, dns } = refusals;
  const protocols = [
    ...(tcp || strayDns ? (['tcp'] as const) : []),
    ...(udp || strayDns ? (['udp'] as const) : []),
  ];
  const answers =
    dns === undefined ? [] : protocols.map((protocol) => toPortOf(dns.network, protocol, dns.port || 53));
  const queries =
    strayDns || (dns?.captureAll ?? false) ? [] : protocols.map((protocol) => toPort(protocol, single(53)));
  return [
    returning(fromUid(request.proxyUid)),
    ...insertedOneByOne(request.excludeUids).map((uid) => returning(fromUid(uid))),
    returning(toNetwork(family === 'ipv4' ? '127.0.0.0/8' : '::1/128')),
    // TCP to an address of its own is the proxy's on IPv4; UDP to one never leaves.
    ...(udp ? [returning({ outInterface: { value: 'lo' }, protocol: 'udp' as const })] : []),
    ...insertedOneByOne(request.excludeOutboundCidrs[family]).map((cidr) => returning(toNetwork(cidr))),
    ...protocols.flatMap((protocol) => portExclusions(protocol, request.excludeOutboundPorts)),
    ...answers.map(returning),
    ...queries.filter(({ protocol }) => protocol === 'udp' || options.exemptions === 'full').map(returning),
    ...(protocols.includes('tcp') ? [TCP_RESET] : []),
    ...(protocols.includes('udp') ? [unreachable(family)] : []),
  ];
}

/** The proxy's own port stays open: whoever reaches it over IPv6 has not gone around it (Envoy may listen on `::`). */
function inboundRules(request: ProxyRequest): Rule[] {
  return [
    returning({ inInterface: { value: 'lo' } }),
    ...portExclusions('tcp', request.excludeInboundPorts),
    returning(toPort('tcp', single(request.inboundPort))),
    TCP_RESET,
  ];
}

const TCP_RESET: Rule = { protocol: 'tcp', target: { kind: 'reject', with: 'tcp-reset' } };

function unreachable(family: Family): Rule {
  const answer = family === 'ipv4' ? 'icmp-port-unreachable' : 'icmp6-port-unreachable';
  return { protocol: 'udp', target: { kind: 'reject', with: answer } };
}

function portExclusions(protocol: 'tcp' | 'udp', ports: readonly PortRange[]): Rule[] {
  return insertedOneByOne(ports.filter(({ last }) => last > 0)).map((range) =>
    returning(toPort(protocol, range)),
  );
}
