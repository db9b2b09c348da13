import { formatAddress, formatCidr, networkOf, type IpAddress } from '../../../shared/net/address.ts';
import { portmapChain, portmapComment } from '../../../shared/packetfilter/names.ts';
import { distinctRules } from '../../../shared/packetfilter/compare.ts';
import type { Family, Match, PortRange, Rule, TableChange } from '../../../shared/packetfilter/ruleset.ts';
import type { PortForwarding } from '../backend.ts';
import type { PortmapSettings } from '../config.ts';
import type { PortMapping } from '../mapping.ts';
import { readConditions, type Conditions } from './conditions.ts';

/** Chains that all containers share. Names, order and comments are the reference's. */
export const DNAT_CHAIN = 'CNI-HOSTPORT-DNAT';
export const SETMARK_CHAIN = 'CNI-HOSTPORT-SETMARK';
export const MASQ_CHAIN = 'CNI-HOSTPORT-MASQ';

/**
 * The desired state of table nat:
 *
 *     PREROUTING, OUTPUT      to an address of this host -> CNI-HOSTPORT-DNAT
 *     CNI-HOSTPORT-DNAT       to ports of this container -> CNI-DN-<hash>
 *     CNI-DN-<hash>           from the container's subnet, from 127.0.0.1 -> CNI-HOSTPORT-SETMARK
 *                             to the port: DNAT
 *     POSTROUTING             first of all -> CNI-HOSTPORT-MASQ: marked packets are masqueraded
 */
export function portmapChange(forwarding: PortForwarding): Omit<TableChange, 'family' | 'table'> {
  const { settings } = forwarding;
  const chain = portmapChain(forwarding);
  const ownMark = settings.snat && settings.externalSetMarkChain === undefined;
  return {
    ensureChains: ownMark ? [SETMARK_CHAIN, MASQ_CHAIN, DNAT_CHAIN] : [DNAT_CHAIN],
    ensureRules: [...(ownMark ? markRules(settings.markMasqBit) : []), ...jumpsToDnat],
    setChains: [
      { chain, rules: distinctRules(forwarding.mappings.flatMap((one) => mappingRules(forwarding, one))) },
    ],
    setJumps: [{ chain: DNAT_CHAIN, to: chain, rules: entryRules(forwarding, chain) }],
  };
}

const toLocal: Rule = {
  matches: [{ kind: 'addrtype', destinationType: 'LOCAL' }],
  target: { kind: 'jump', chain: DNAT_CHAIN },
};

export const jumpsToDnat = ['PREROUTING', 'OUTPUT'].map((chain) => ({
  chain,
  rule: toLocal,
  at: 'last' as const,
}));

/** Networks may use different bits: a rule for another bit stays. */
export function markRules(bit: number): NonNullable<TableChange['ensureRules']> {
  const mark = 2 ** bit;
  return [
    {
      chain: SETMARK_CHAIN,
      rule: {
        matches: [comment('CNI portfwd masquerade mark')],
        target: { kind: 'mark', value: mark, mask: mark },
      },
      at: 'last',
    },
    {
      chain: MASQ_CHAIN,
      rule: { matches: [{ kind: 'mark', value: mark, mask: mark }], target: { kind: 'masquerade' } },
      at: 'last',
    },
    // Ahead of bridge's masquerade rules, which accept hairpin traffic as traffic between neighbours.
    {
      chain: 'POSTROUTING',
      rule: {
        matches: [comment('CNI portfwd requiring masquerade')],
        target: { kind: 'jump', chain: MASQ_CHAIN },
      },
      at: 'prepended',
    },
  ];
}

/** The rules of the container's chain for one mapping. Marks come first: DNAT ends the chain. */
export function mappingRules({ settings, container, family }: PortForwarding, mapping: PortMapping): Rule[] {
  const base = {
    ...(mapping.hostAddress === undefined ? {} : { destination: { value: hostCidr(mapping.hostAddress) } }),
    protocol: mapping.protocol,
    matches: [{ kind: 'port', destinationPort: portsOf(mapping) }] satisfies Match[],
  };
  const mark = { kind: 'jump', chain: settings.externalSetMarkChain ?? SETMARK_CHAIN } as const;
  const sources = markedSources(settings, family, formatCidr(networkOf(container)));
  return [
    ...sources.map((source): Rule => ({ ...source, ...base, target: mark })),
    { ...base, target: { kind: 'dnat', to: destination(mapping, container.address) } },
  ];
}

function markedSources(
  { snat, masqAll }: PortmapSettings,
  family: Family,
  subnet: string,
): { source?: { value: string } }[] {
  if (!snat) return [];
  if (masqAll) return [{}];
  const local = family === 'ipv4' ? [{ source: { value: '127.0.0.1/32' } }] : [];
  return [{ source: { value: subnet } }, ...local];
}

/** A range whose container ports differ from its host ports is shifted as a whole: `-first-last/base` of iptables. */
function destination({ hostPort, containerPort, range }: PortMapping, address: IpAddress): string {
  const text = formatAddress(address);
  if (range > 1 && hostPort === containerPort) return text;
  const host = address.family === 'ipv4' ? text : `[${text}]`;
  return range === 1
    ? `${host}:${containerPort}`
    : `${host}:${containerPort}-${containerPort + range - 1}/${hostPort}`;
}

/** The multiport match takes 15 ports; a range counts as two (linux/netfilter/xt_multiport.h). */
const PORTS_PER_RULE = 15;

/**
 * Rules that jump to the container's chain. As in the reference they name the ports of every mapping, also of those that apply to the
 * other family only: the chain has no rule for them, and the packet continues.
 */
function entryRules(forwarding: PortForwarding, chain: string): Rule[] {
  const { family, settings, mappings } = forwarding;
  const text = entryComment(forwarding);
  const conditions = readConditions(family, settings.conditions[family]);
  const all = settings.mappings ?? mappings;
  return (['sctp', 'tcp', 'udp'] as const).flatMap((protocol) =>
    groups(all.filter((one) => one.protocol === protocol).map(portsOf)).flatMap((destinationPorts) =>
      conditions.map((condition): Rule => entry(chain, text, protocol, destinationPorts, condition)),
    ),
  );
}

/** For CHECK: the rule for one mapping alone. */
export function entryRule(forwarding: PortForwarding, mapping: PortMapping, condition: Conditions): Rule {
  const ports = [portsOf(mapping)];
  return entry(portmapChain(forwarding), entryComment(forwarding), mapping.protocol, ports, condition);
}

function entry(
  chain: string,
  text: Match,
  protocol: PortMapping['protocol'],
  destinationPorts: readonly PortRange[],
  { matches = [], ...rest }: Conditions,
): Rule {
  return {
    ...rest,
    protocol,
    matches: [text, { kind: 'multiport', destinationPorts }, ...matches],
    target: { kind: 'jump', chain },
  };
}

function entryComment({ network, containerId }: PortForwarding): Match {
  return comment(portmapComment({ network, containerId }));
}

/** In order, as many as one rule can name. */
function groups(ranges: readonly PortRange[]): PortRange[][] {
  const filled: PortRange[][] = [];
  let free = 0;
  for (const range of ranges) {
    const size = range.first === range.last ? 1 : 2;
    if (size > free) {
      filled.push([]);
      free = PORTS_PER_RULE;
    }
    filled.at(-1)?.push(range);
    free -= size;
  }
  return filled;
}

function portsOf({ hostPort, range }: PortMapping): PortRange {
  return { first: hostPort, last: hostPort + range - 1 };
}

function hostCidr(address: IpAddress): string {
  return `${formatAddress(address)}/${address.family === 'ipv4' ? 32 : 128}`;
}

function comment(text: string): Match {
  return { kind: 'comment', comment: text };
}
