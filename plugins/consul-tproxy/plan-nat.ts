import { isLoopback, parseAddress } from '../../shared/net/address.ts';
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

type Chain = TablePlan['chains'][number];

/**
 * The redirects of one family: outbound and inbound TCP to the proxy, DNS to Consul. IPv4 always; IPv6 in whole when it is redirected,
 * or only its DNS when Consul's DNS has an IPv6 address.
 */
export function planNat(family: Family, request: ProxyRequest, options: TproxyOptions): TablePlan {
  const anywhere = planDns(request, options);
  const dns = anywhere?.family === family ? anywhere : undefined;
  const redirected = family === 'ipv4' || options.ipv6 === 'redirect';
  if (!redirected)
    return { family, table: 'nat', ...(dns === undefined ? NOTHING : dnsOnly(dns, family, request)) };
  return {
    family,
    table: 'nat',
    chains: [
      { chain: CHAINS.inbound, rules: inboundRules(request, options) },
      { chain: CHAINS.inboundRedirect, rules: [redirectTo(request.inboundPort)] },
      { chain: CHAINS.output, rules: outputRules(family, request, options, anywhere) },
      { chain: CHAINS.outputRedirect, rules: [redirectTo(request.outboundPort)] },
      // Upstream makes this chain even when nothing is in it.
      dnsChain(dns, family, request),
    ],
    hooks: [
      { chain: 'PREROUTING', rules: [jumping(CHAINS.inbound, { protocol: 'tcp' })] },
      { chain: 'OUTPUT', rules: [...dnsHooks(dns), jumping(CHAINS.output, { protocol: 'tcp' })] },
    ],
  };
}

const NOTHING = { chains: [], hooks: [] };

function dnsOnly(dns: DnsPlan, family: Family, request: ProxyRequest): Pick<TablePlan, 'chains' | 'hooks'> {
  return {
    chains: [dnsChain(dns, family, request)],
    hooks: [{ chain: 'OUTPUT', rules: dnsHooks(dns) }],
  };
}

function redirectTo(port: number): Rule {
  return { protocol: 'tcp', target: { kind: 'redirect', port } };
}

function inboundRules(request: ProxyRequest, options: TproxyOptions): Rule[] {
  return [
    ...portExclusions(request.excludeInboundPorts, options),
    jumping(CHAINS.inboundRedirect, { protocol: 'tcp' }),
  ];
}

function outputRules(
  family: Family,
  request: ProxyRequest,
  options: TproxyOptions,
  dns: DnsPlan | undefined,
): Rule[] {
  const excludedCidrs = request.excludeOutboundCidrs[family];
  return [
    ...insertedOneByOne(request.excludeUids).map((uid) => returning(fromUid(uid))),
    ...insertedOneByOne(excludedCidrs).map((cidr) => returning(toNetwork(cidr))),
    ...portExclusions(request.excludeOutboundPorts, options),
    returning(fromUid(request.proxyUid)),
    returning(toNetwork(family === 'ipv4' ? '127.0.0.1/32' : '::1/128')),
    ...(options.exemptions === 'full' ? fullExemptions(family, dns) : []),
    jumping(CHAINS.outputRedirect),
  ];
}

/**
 * What upstream misses: Envoy's admin address is 127.0.0.2 on Nomad, resolvers listen on 127.0.0.11 and 127.0.0.53; and a truncated
 * DNS answer is asked for again over TCP, which the proxy does not understand. Where DNS is captured whole there is none left to exempt.
 */
function fullExemptions(family: Family, dns: DnsPlan | undefined): Rule[] {
  const loopback = family === 'ipv4' ? [returning(toNetwork('127.0.0.0/8'))] : [];
  const captured = dns?.captureAll === true && dns.family === family;
  return captured ? loopback : [...loopback, returning(toPort('tcp', single(53)))];
}

/** Nomad's port 0 excludes nothing. It is written where the rules shall be upstream's to the letter. */
function portExclusions(ports: readonly PortRange[], options: TproxyOptions): Rule[] {
  const kept = ports.filter(({ last }) => last > 0 || options.exemptions === 'consul');
  return insertedOneByOne(kept).map((range) => returning(toPort('tcp', range)));
}

const LOOPBACK = { ipv4: '127.0.0.0/8', ipv6: '::1/128' } as const;

function isOnLoopback({ address }: DnsPlan): boolean {
  const parsed = parseAddress(address);
  return parsed !== undefined && isLoopback(parsed);
}

const PROTOCOLS = ['udp', 'tcp'] as const;

/** The jumps stand before that of the proxy: DNS over TCP to Consul must not reach it. They also take the proxy's own queries. */
function dnsHooks(dns: DnsPlan | undefined): Rule[] {
  return PROTOCOLS.flatMap((protocol) =>
    dns === undefined ? [] : [jumping(CHAINS.dns, queries(dns, protocol))],
  );
}

function queries(dns: DnsPlan, protocol: 'udp' | 'tcp'): Omit<Rule, 'target'> {
  return dns.captureAll ? toPort(protocol, single(53)) : toPortOf(dns.network, protocol, 53);
}

function dnsChain(dns: DnsPlan | undefined, family: Family, request: ProxyRequest): Chain {
  if (dns === undefined) return { chain: CHAINS.dns, rules: [] };
  const toConsul = (body: Omit<Rule, 'target'>): Rule => ({
    ...body,
    target: { kind: 'dnat', to: dns.target },
  });
  const captured = PROTOCOLS.map((protocol) => toConsul(queries(dns, protocol)));
  if (!dns.captureAll || dns.port === 0) return { chain: CHAINS.dns, rules: captured };
  // Captured from everywhere by the operator's choice: what the job excludes, and a resolver that runs as the proxy, still ask whom they like;
  // and loopback is no way out: a stub resolver there asks on, and is captured then. (From loopback to another host the kernel routes nothing.)
  const own = PROTOCOLS.map((protocol) => toConsul(toPortOf(dns.network, protocol, 53)));
  const exempt = [
    ...[...request.excludeUids, request.proxyUid].map((uid) => returning(fromUid(uid))),
    ...request.excludeOutboundCidrs[family].map((cidr) => returning(toNetwork(cidr))),
    ...(isOnLoopback(dns) ? [] : [returning(toNetwork(LOOPBACK[family]))]),
  ];
  return { chain: CHAINS.dns, rules: [...own, ...exempt, ...captured] };
}
