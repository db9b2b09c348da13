import type { Rule } from './ruleset.ts';

export type Protocol = NonNullable<Rule['protocol']>;

/** Numbers of protocols, netinet/in.h. */
export const PROTOCOLS: Readonly<Record<Protocol, number>> = {
  icmp: 1,
  tcp: 6,
  udp: 17,
  icmpv6: 58,
  sctp: 132,
};

export const PROTOCOL_NAMES: ReadonlyMap<number, Protocol> = new Map(
  Object.entries(PROTOCOLS).map(([name, number]) => [number, name as Protocol]),
);
