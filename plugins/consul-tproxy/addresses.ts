import {
  familyBits,
  formatAddress,
  formatCidr,
  networkOf,
  parseAddress,
  parseCidr,
} from '../../shared/net/address.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { DnsRequest, Findings } from './request.ts';

/**
 * ConsulDNSIP and ConsulDNSPort; Nomad sends both or neither. Either family: on a node whose Consul listens on IPv6, upstream
 * refuses every allocation.
 */
export function readDns(ip: string, port: number, findings: Findings): DnsRequest | undefined {
  if (port < 0 || port > 65535) findings.problem(`ConsulDNSPort must be a port from 0 to 65535, got ${port}`);
  if (ip === '') return port === 0 ? undefined : { address: undefined, port };
  const address = parseAddress(ip);
  if (address === undefined) {
    findings.problem(
      `unable to parse consulDNSIP: ConsulDNSIP must be an IP address, got ${JSON.stringify(ip)}`,
    );
  } else if (address.value === 0n) {
    findings.problem(
      `ConsulDNSIP must be an address that answers queries, got ${ip}, which stands for any address`,
    );
  } else {
    return { address: { family: address.family, text: formatAddress(address) }, port };
  }
  return undefined;
}

/**
 * ExcludeOutboundCIDRs by family (upstream hands them all to iptables and fails on the first IPv6 one, half-way through), host bits
 * cleared, a bare address as its own network. Host names are refused: upstream would ask DNS for them from inside the allocation.
 */
export function readCidrs(
  key: string,
  texts: readonly string[],
  findings: Findings,
): Record<Family, readonly string[]> {
  const found = { ipv4: new Set<string>(), ipv6: new Set<string>() };
  for (const text of texts) {
    const cidr = text.includes('/') ? parseCidr(text) : asNetwork(text);
    if (cidr === undefined) {
      findings.problem(
        `${key}: each must be an address or a network such as 10.0.0.0/8 or fd00::/8, got ${JSON.stringify(text)}`,
      );
    } else {
      found[cidr.address.family].add(formatCidr(networkOf(cidr)));
    }
  }
  return { ipv4: [...found.ipv4], ipv6: [...found.ipv6] };
}

function asNetwork(text: string): ReturnType<typeof parseCidr> {
  const address = parseAddress(text);
  return address === undefined ? undefined : { address, prefix: familyBits(address.family) };
}
