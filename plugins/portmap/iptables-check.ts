import { isUnmanaged } from '../../shared/packetfilter/compare.ts';
import { ruleText } from '../../shared/packetfilter/iptables/render.ts';
import { missingFrom, standsAmong } from '../../shared/packetfilter/missing.ts';
import { portmapChain } from '../../shared/packetfilter/names.ts';
import type { UnmanagedRule, PortRange, Rule, TableState } from '../../shared/packetfilter/ruleset.ts';
import type { Forwarding } from './backend.ts';
import { DNAT_CHAIN, portmapChange } from './iptables-rules.ts';

/**
 * What of a container's ports is missing, in words; undefined when all is there. How ports are spread over the rules that lead to
 * the container's chain does not matter: another release, or the reference, may have spread them differently.
 */
export function missingPorts(state: TableState, forwarding: Forwarding): string | undefined {
  const { setJumps = [], ...rest } = portmapChange(forwarding);
  const [first] = missingFrom(state, rest);
  if (first !== undefined) return first;
  const standing = state.jumps(DNAT_CHAIN, portmapChain(forwarding)).filter(isRule);
  const needed = neededPorts(forwarding);
  const missing = setJumps
    .flatMap(({ rules }) => rules.flatMap((rule) => onePortEach(rule, needed)))
    .find((rule) => !standing.some((other) => covers(other, rule)));
  if (missing === undefined) return undefined;
  return `rule is missing from chain ${DNAT_CHAIN} of table nat (${state.family}): ${ruleText(missing)}`;
}

function isRule(rule: Rule | UnmanagedRule): rule is Rule {
  return !isUnmanaged(rule);
}

/** Ports that are mapped in this family. */
function neededPorts({ mappings }: Forwarding): PortRange[] {
  return mappings.map(({ hostPort, range }) => ({ first: hostPort, last: hostPort + range - 1 }));
}

function onePortEach(rule: Rule, needed: readonly PortRange[]): Rule[] {
  return portsOf(rule)
    .filter((port) => needed.some((one) => isWithin(port, one)))
    .map((port) => withPorts(rule, [port]));
}

function covers(standing: Rule, wanted: Rule): boolean {
  const [port] = portsOf(wanted);
  if (port === undefined || !portsOf(standing).some((one) => isWithin(port, one))) return false;
  return standsAmong([withPorts(standing, [])], withPorts(wanted, []));
}

function isWithin(port: PortRange, outer: PortRange): boolean {
  return outer.first <= port.first && port.last <= outer.last;
}

function portsOf({ matches = [] }: Rule): readonly PortRange[] {
  return matches.find((match) => match.kind === 'multiport')?.destinationPorts ?? [];
}

function withPorts(rule: Rule, destinationPorts: readonly PortRange[]): Rule {
  const matches = (rule.matches ?? []).map((match) =>
    match.kind === 'multiport' ? { ...match, destinationPorts } : match,
  );
  return { ...rule, matches };
}
