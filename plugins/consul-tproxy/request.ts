import type { Family, PortRange } from '../../shared/packetfilter/ruleset.ts';

/** What the job asks for, validated: CONSUL_IPTABLES_CONFIG with every value canonical and sorted out by family. */
export interface ProxyRequest {
  /** Envoy's uid as the allocation's user namespace sees it; a range when the job gives one. */
  readonly proxyUid: UidRange;
  readonly inboundPort: number;
  readonly outboundPort: number;
  /** Undefined when the job or the node has no Consul DNS. */
  readonly dns: DnsRequest | undefined;
  /** In the order given, without duplicates. `{first: 0, last: 0}` is the no-op that Nomad sends for a port without `to`. */
  readonly excludeInboundPorts: readonly PortRange[];
  readonly excludeOutboundPorts: readonly PortRange[];
  /** Masked CIDRs in shortest text. */
  readonly excludeOutboundCidrs: Readonly<Record<Family, readonly string[]>>;
  readonly excludeUids: readonly UidRange[];
}

export interface UidRange {
  readonly first: number;
  readonly last: number;
}

export interface DnsRequest {
  /** Absent when only a port was given: the allocation's own loopback, of the family that the rules are for. */
  readonly address: { readonly family: Family; readonly text: string } | undefined;
  /** 0: answers on port 53 of the address, and queries to every server go there. */
  readonly port: number;
}

/** Where a reader says what it found: problems stop the ADD, all in one error; notices go to the log. */
export interface Findings {
  problem(sentence: string): void;
  notice(sentence: string): void;
}
