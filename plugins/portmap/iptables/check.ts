import { isUnmanaged } from '../../../shared/packetfilter/compare.ts';
import { ruleText } from '../../../shared/packetfilter/iptables/render.ts';
import { missingFrom, standsAmong } from '../../../shared/packetfilter/missing.ts';
import { portmapChain } from '../../../shared/packetfilter/names.ts';
import type { UnmanagedRule, PortRange, Rule, TableState } from '../../../shared/packetfilter/ruleset.ts';
import { formatAddress, parseAddress, parseCidr } from '../../../shared/net/address.ts';
import type { ForwardedPorts, PortForwarding } from '../backend.ts';
import { isProtocol } from '../mapping.ts';
import { DNAT_CHAIN, portmapChange } from './plan.ts';

/**
 * The first rule of a container that is missing, as a phrase for the error; undefined when complete. How ports are distributed over the
 * rules that jump to the container's chain does not matter: another release, or the reference, may distribute them differently.
 */
export function missingRule(state: TableState, forwarding: PortForwarding): string | undefined {
  const { setJumps = [], ...rest } = portmapChange(forwarding);
  const [first] = missingFrom(state, rest);
  if (first !== undefined) return first;
  const present = state.jumps(DNAT_CHAIN, portmapChain(forwarding)).filter(isRule);
  const needed = mappedPorts(forwarding);
  const missing = setJumps
    .flatMap(({ rules }) => rules.flatMap((rule) => onePortEach(rule, needed)))
    .find((rule) => !present.some((other) => covers(other, rule)));
  if (missing === undefined) return undefined;
  return `rule is missing from chain ${DNAT_CHAIN} of table nat (${state.family}): ${ruleText(missing)}`;
}

/** The ports that a container's chain forwards, read back from its DNAT rules. */
export function forwardedBy(state: TableState, chain: string): ForwardedPorts[] {
  return (state.chains.get(chain) ?? []).flatMap((rule) => {
    const ports = isUnmanaged(rule) ? undefined : forwardedPorts(rule);
    return ports === undefined ? [] : [ports];
  });
}

function forwardedPorts({ protocol, destination, matches = [], target }: Rule): ForwardedPorts | undefined {
  const port = matches.find((match) => match.kind === 'port')?.destinationPort;
  if (target.kind !== 'dnat' || port === undefined || !isProtocol(protocol)) return undefined;
  const containerAddress = addressIn(target.to);
  if (containerAddress === undefined) return undefined;
  const host = destination === undefined ? undefined : parseCidr(destination.value)?.address;
  return { protocol, ...port, address: host && formatAddress(host), containerAddress };
}

/** The address in `10.88.0.2:80`, `[fd00::2]:80` and `fd00::2`. */
function addressIn(to: string): string | undefined {
  const text = /^\[([^\]]+)\]/.exec(to)?.[1] ?? (parseAddress(to) === undefined ? to.split(':')[0] : to);
  const address = parseAddress(text ?? '');
  return address && formatAddress(address);
}

function isRule(rule: Rule | UnmanagedRule): rule is Rule {
  return !isUnmanaged(rule);
}

function mappedPorts({ mappings }: PortForwarding): PortRange[] {
  return mappings.map(({ hostPort, range }) => ({ first: hostPort, last: hostPort + range - 1 }));
}

function onePortEach(rule: Rule, needed: readonly PortRange[]): Rule[] {
  return portsOf(rule)
    .filter((port) => needed.some((one) => isWithin(port, one)))
    .map((port) => withPorts(rule, [port]));
}

function covers(present: Rule, wanted: Rule): boolean {
  const [port] = portsOf(wanted);
  if (port === undefined || !portsOf(present).some((one) => isWithin(port, one))) return false;
  return standsAmong([withPorts(present, [])], withPorts(wanted, []));
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
