import { commentOf, isUnmanaged } from '../../shared/packetfilter/compare.ts';
import { attachmentOfComment, portmapChain } from '../../shared/packetfilter/names.ts';
import type { Rule, TableState } from '../../shared/packetfilter/ruleset.ts';
import type { Forwarding } from './backend.ts';
import type { Conflict } from './holders.ts';
import { forwardedBy } from './iptables-forwarded.ts';
import { DNAT_CHAIN } from './iptables-rules.ts';
import { claimOf, collide } from './mapping.ts';

/**
 * Chains of other containers that lead away a port this one wants. Looked up through the rules of CNI-HOSTPORT-DNAT, whose
 * ports decide whether a chain is looked into at all. Another network of the same container is no conflict.
 */
export function conflictsOf(state: TableState, forwarding: Forwarding): (Conflict & { chain: string })[] {
  const own = portmapChain(forwarding);
  const claims = forwarding.mappings.map(claimOf);
  const entries = state.forPorts(DNAT_CHAIN, claims).filter((rule): rule is Rule => !isUnmanaged(rule));
  const suspects = new Map<string, Rule>();
  for (const rule of entries) {
    if (rule.target.kind !== 'jump' || rule.target.chain === own) continue;
    if (claims.some(({ protocol, first, last }) => covers(rule, protocol, first, last))) {
      suspects.set(rule.target.chain, rule);
    }
  }
  return [...suspects].flatMap(([chain, rule]) => {
    const holder = attachmentOfComment(commentOf(rule) ?? '');
    if (holder?.containerId === forwarding.containerId) return [];
    const held = forwardedBy(state, chain).find((one) => claims.some((claim) => collide(one, claim)));
    return held === undefined ? [] : [{ ...held, chain, holder }];
  });
}

function covers(rule: Rule, protocol: string, first: number, last: number): boolean {
  if (rule.protocol !== protocol) return false;
  const ports = rule.matches?.find((match) => match.kind === 'multiport')?.destinationPorts ?? [];
  return ports.some((range) => range.first <= last && first <= range.last);
}
