import { familyBits } from '../../shared/net/address.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { OwnTable } from './backend.ts';
import { CHAINS } from './names.ts';
import type { TproxyOptions } from './options.ts';
import type { DnsRequest, ProxyRequest } from './request.ts';

/** Consul's DNS as the rules of one allocation see it. */
export interface DnsPlan {
  /** Queries can be handed on within one family only. */
  readonly family: Family;
  readonly address: string;
  /** The address as a network of itself: `10.0.0.1/32`. */
  readonly network: string;
  readonly port: number;
  /** DNAT's target: `10.0.0.1:8600`, `[fd00::1]:8600`, or the bare address where the port stays 53. */
  readonly target: string;
  /** Queries to every server are captured, not only those to `address`. */
  readonly captureAll: boolean;
}

/**
 * Where DNS goes, or undefined when the job has no Consul DNS.
 * A port without an address means the allocation's own loopback: ::1 when IPv6 is redirected (upstream's dual stack), else 127.0.0.1.
 * An address without a port captures queries to any server, as upstream does; so does `dnsCapture: "all"`, unless the job itself
 * excludes port 53.
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

/** The Consul DNS that standing rules hand queries to; undefined when none do. */
export function standingDns(tables: readonly OwnTable[]): DnsRequest | undefined {
  for (const { family, table, chains } of tables) {
    const targets =
      table === 'nat'
        ? (chains.get(CHAINS.dns) ?? []).map((rule) => ('unmanaged' in rule ? undefined : rule.target))
        : [];
    const dnat = targets.find((target) => target?.kind === 'dnat');
    if (dnat === undefined) continue;
    const [, bracketed, port] = /^\[(.+)\]:(\d+)$/.exec(dnat.to) ?? /^([^:]+):(\d+)$/.exec(dnat.to) ?? [];
    return { address: { family, text: bracketed ?? dnat.to }, port: Number(port ?? 0) };
  }
  return undefined;
}
