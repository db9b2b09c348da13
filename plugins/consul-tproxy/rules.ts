import type { Match, PortRange, Rule, Target } from '../../shared/packetfilter/ruleset.ts';
import type { UidRange } from './request.ts';

/** Words for building rules, so that plans read like the lists they produce. */
type Body = Omit<Rule, 'target'>;

export const RETURN: Target = { kind: 'return' };

export function returning(body: Body): Rule {
  return { ...body, target: RETURN };
}

export function jumping(chain: string, body: Body = {}): Rule {
  return { ...body, target: { kind: 'jump', chain } };
}

export function fromUid(uid: UidRange): Body {
  return { matches: [{ kind: 'owner', uid: { first: uid.first, last: uid.last } }] };
}

/** A network of everything is no condition: iptables prints none for it. */
export function toNetwork(cidr: string): Body {
  return cidr.endsWith('/0') ? {} : { destination: { value: cidr } };
}

export function toPort(protocol: 'tcp' | 'udp', destinationPort: PortRange): Body {
  return { protocol, matches: [portMatch(destinationPort)] };
}

export function toPortOf(network: string, protocol: 'tcp' | 'udp', port: number): Body {
  return { destination: { value: network }, ...toPort(protocol, single(port)) };
}

export function single(port: number): PortRange {
  return { first: port, last: port };
}

function portMatch(destinationPort: PortRange): Match {
  return { kind: 'port', destinationPort };
}

/** Upstream inserts each exclusion at the head of its chain, so the last one given comes first. */
export function insertedOneByOne<Entry>(entries: readonly Entry[]): Entry[] {
  return [...entries].reverse();
}
