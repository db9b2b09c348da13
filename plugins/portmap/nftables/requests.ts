import { formatAddress, parseCidr } from '../../../shared/net/address.ts';
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import { addresses } from '../../../shared/kernel/rtnetlink/addresses.ts';
import { Rtnetlink } from '../../../shared/kernel/rtnetlink/rtnetlink.ts';
import {
  addChain,
  addElements,
  addSet,
  addTable,
  deleteChain,
  flushChain,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import { perObject } from '../../../shared/packetfilter/desired.ts';
import type { NftChain, NftElement, NftRule } from '../../../shared/packetfilter/nftables/model.ts';
import type { NftReader, StandingRule } from '../../../shared/packetfilter/nftables/reader.ts';
import type { Family } from '../../../shared/packetfilter/ruleset.ts';
import type { ForwardedPorts, PortForwarding } from '../backend.ts';
import { resolveConflicts, type PortConflict } from '../conflicts.ts';
import { HostPortIndex, hostPortsOf, type HostPorts } from '../mapping.ts';
import {
  addressPortsMap,
  baseChain,
  containerChain,
  containerRules,
  elementsOf,
  keysOf,
  keyText,
  lookupRules,
  masqueradeRule,
  ownerOf,
  portsMap,
  readRecord,
  splitShifted,
  tableOf,
  type PortKey,
} from './plan.ts';
import { addToShared, chunks, detachChains, portStates, type MapEntry } from './shared-ports.ts';

/** Requests that make the container's ports forwarded to it; none when they are. */
export function additionRequests(
  reader: NftReader,
  given: PortForwarding,
  warn: (line: string) => void,
): NetlinkRequest[] {
  const plan = planOf(given);
  const { forwarding } = plan;
  const { family } = forwarding;
  const dead = deadChains(reader, forwarding, warn);
  return [
    ...skeletonRequests(reader, family),
    ...masqueradeRequests(reader, forwarding),
    ...removalRequests(reader, family, dead, staleEntries(reader, forwarding)).requests,
    ...containerRequests(reader, plan, new Set(dead)),
  ];
}

/**
 * For repair: the requests that complete the mappings of one family's containers, in the order of their ADDs; none if they are complete. Of
 * containers that share a port, which needs a chain of its own, all but the first wait for the next round.
 */
export function restoreRequests(
  reader: NftReader,
  family: Family,
  given: readonly PortForwarding[],
): NetlinkRequest[] {
  const plans = given.map(keptPlanOf);
  const forwardings = plans.map(({ forwarding }) => forwarding);
  const bits = new Set(forwardings.flatMap(({ settings }) => (settings.snat ? [settings.markMasqBit] : [])));
  const marked = [...bits].flatMap(
    (bit) => forwardings.find(({ settings }) => settings.snat && settings.markMasqBit === bit) ?? [],
  );
  const taken = new Set<string>();
  return [
    ...skeletonRequests(reader, family),
    ...marked.flatMap((forwarding) => masqueradeRequests(reader, forwarding)),
    ...plans.flatMap((plan) => {
      const ports = plan.elements.map(keyText);
      if (ports.some((port) => taken.has(port))) return [];
      ports.forEach((port) => taken.add(port));
      return containerRequests(reader, plan, new Set());
    }),
  ];
}

export interface Removal {
  readonly requests: readonly NetlinkRequest[];
  /** The ports whose rules the requests remove. */
  readonly removed: readonly ForwardedPorts[];
}

/**
 * Removes containers' chains and the map entries that jump to them. The rules of a chain name its ports, so no map is listed.
 * @param stale further map entries to remove in the same transaction
 */
export function removalRequests(
  reader: NftReader,
  family: Family,
  names: readonly string[],
  stale: readonly MapEntry[] = [],
): Removal {
  const chains = names
    .map((name) => ({ table: tableOf(family), name }))
    .filter((one) => reader.hasChain(one));
  const forwarded = chains.map(({ name }) => ({ name, ports: forwardedBy(reader, family, name) }));
  const entries = forwarded.flatMap(({ name, ports }) => entriesOf(family, name, ports));
  return {
    requests: [
      ...detachChains(reader, family, [...entries, ...stale]),
      ...chains.flatMap((chain) => [flushChain(chain), deleteChain(chain)]),
    ],
    removed: forwarded.flatMap(({ ports }) => ports),
  };
}

/** Chains of dead containers that forward ports of this one. @throws CniError 11 when one of the containers is running */
export function deadChains(
  reader: NftReader,
  forwarding: PortForwarding,
  warn: (line: string) => void,
): string[] {
  if (forwarding.settings.portConflict === 'reference') return [];
  return resolveConflicts(forwarding, conflictsOf(reader, forwarding), warn).map(({ chain }) => chain);
}

/** Chains of other containers that forward a port of this one, found by looking up exactly those ports. */
function conflictsOf(reader: NftReader, forwarding: PortForwarding): (PortConflict & { chain: string })[] {
  const { family } = forwarding;
  // Most hosts use one back end only, and there may be ten thousand ports to look up.
  if (!reader.hasTable(tableOf(family))) return [];
  const own = containerChain(forwarding, family).name;
  const ports = forwarding.mappings.map(hostPortsOf);
  const wanted = new HostPortIndex(ports);
  const keys = conflictingKeys(ports, family);
  const chains = new Set(portStates(reader, family, keys).flatMap((state) => state.chains));
  chains.delete(own);
  return [...chains].flatMap((chain) => {
    const owner = ownerOf(reader.chainComment({ table: tableOf(family), name: chain }));
    if (owner?.containerId === forwarding.containerId) return [];
    const used = forwardedBy(reader, family, chain).find((one) => wanted.overlaps(one));
    return used === undefined ? [] : [{ ...used, chain, owner }];
  });
}

/** A port of one address conflicts with the same port of all addresses, and the reverse. */
function conflictingKeys(wanted: readonly HostPorts[], family: Family): PortKey[] {
  const addresses = wanted.some(({ address }) => address === undefined) ? hostAddresses(family) : [];
  return wanted.flatMap((ports) => {
    const everywhere = { ...ports, address: undefined };
    const single =
      ports.address === undefined ? addresses.map((address) => ({ ...ports, address })) : [ports];
    return [everywhere, ...single].flatMap((one) => keysOf(one, family));
  });
}

/** RT_SCOPE_LINK of linux/rtnetlink.h */
const LINK_SCOPE = 253;

/** Addresses of the host that a hostIP can name; link-local addresses cannot be reached through a mapping. */
function hostAddresses(family: Family): string[] {
  using rtnetlink = Rtnetlink.open();
  return addresses(rtnetlink, { family })
    .filter(({ scope }) => scope !== LINK_SCOPE)
    .flatMap(({ address }) => {
      const parsed = parseCidr(address);
      return parsed === undefined ? [] : [formatAddress(parsed.address)];
    });
}

/** Table, maps and base chains, which all containers share. */
export function skeletonRequests(reader: NftReader, family: Family): NetlinkRequest[] {
  const table = tableOf(family);
  const lookups = (['prerouting', 'output'] as const).map((name) => baseChain(family, name));
  const wanted = lookupRules(family).map((statements) => ({ statements }));
  const complete = lookups.every((chain) => areRules(reader.rules(chain), wanted));
  if (complete) return [];
  return [
    addTable(table),
    addSet(portsMap(family), 1),
    addSet(addressPortsMap(family), 2),
    addChain(baseChain(family, 'postrouting')),
    ...lookups.flatMap((chain) => [
      addChain(chain),
      flushChain(chain),
      ...wanted.map((one) => ruleRequest({ chain, ...one })),
    ]),
  ];
}

/** One rule for each mark bit in use. */
function masqueradeRequests(reader: NftReader, { settings, family }: PortForwarding): NetlinkRequest[] {
  if (!settings.snat) return [];
  const chain = baseChain(family, 'postrouting');
  const statements = masqueradeRule(settings.markMasqBit);
  return reader.rules(chain).some((present) => present.is({ statements }))
    ? []
    : [addChain(chain), ruleRequest({ chain, statements })];
}

/** What a container needs in the tables. */
interface ContainerPlan {
  /** With one mapping for each port that is shifted. */
  readonly forwarding: PortForwarding;
  readonly chain: NftChain;
  readonly rules: readonly Pick<NftRule, 'statements' | 'comment'>[];
  readonly elements: readonly NftElement[];
}

function planOf(given: PortForwarding): ContainerPlan {
  const forwarding = { ...given, mappings: splitShifted(given.mappings) };
  return {
    forwarding,
    chain: containerChain(forwarding, forwarding.family),
    rules: containerRules(forwarding),
    elements: wantedElements(forwarding),
  };
}

const keptPlanOf = perObject(planOf);

/** Fills the container's chain unless it is complete, and adds the map entries that do not jump to it yet. */
function containerRequests(
  reader: NftReader,
  { forwarding: { family }, chain, rules, elements }: ContainerPlan,
  dead: ReadonlySet<string>,
): NetlinkRequest[] {
  const present = portStates(reader, family, elements);
  const states = elements.map((element, at) => {
    const { chains = [], jumps } = present[at] ?? {};
    return { element, state: { chains: chains.filter((one) => !dead.has(one)), jumps } };
  });
  const free = states.filter(({ state }) => state.chains.length === 0).map(({ element }) => element);
  const shared = states.filter(({ state: { chains } }) => chains.length > 0 && !chains.includes(chain.name));
  const standing = reader.rules(chain);
  const fill = areRules(standing, rules)
    ? []
    : [
        addChain(chain),
        ...(standing.length > 0 ? [flushChain(chain)] : []),
        ...rules.map((one) => ruleRequest({ chain, ...one })),
      ];
  return [
    ...fill,
    ...elementRequests(free),
    ...shared.flatMap(({ element, state }) => addToShared(family, element, chain.name, state)),
  ];
}

/** Map entries that an earlier ADD of this container made and this one does not ask for. */
function staleEntries(reader: NftReader, forwarding: PortForwarding): MapEntry[] {
  const { family } = forwarding;
  const { name } = containerChain(forwarding, family);
  const wanted = new Set(wantedElements(forwarding).map(keyText));
  const present = entriesOf(family, name, forwardedBy(reader, family, name));
  return present.filter(({ port }) => !wanted.has(keyText(port)));
}

/** The ports that a container's chain forwards, read back from its rules. */
export function forwardedBy(reader: NftReader, family: Family, name: string): ForwardedPorts[] {
  return reader.rules({ table: tableOf(family), name }).flatMap(({ comment }) => readRecord(comment) ?? []);
}

function entriesOf(family: Family, chain: string, ports: readonly HostPorts[]): MapEntry[] {
  return ports.flatMap((one) => keysOf(one, family)).map((port) => ({ port, chain }));
}

export function hasContainerRules(reader: NftReader, forwarding: PortForwarding): boolean {
  return areRules(reader.rules(containerChain(forwarding, forwarding.family)), containerRules(forwarding));
}

function areRules(
  present: readonly StandingRule[],
  wanted: readonly Pick<NftRule, 'statements' | 'comment'>[],
): boolean {
  return present.length === wanted.length && wanted.every((one, at) => present[at]?.is(one) === true);
}

/** One per port: with "portConflict": "reference" a container's mappings may overlap. */
export function wantedElements(forwarding: PortForwarding): NftElement[] {
  const all = forwarding.mappings.flatMap((mapping) => elementsOf(forwarding, mapping));
  return [...new Map(all.map((element) => [keyText(element), element])).values()];
}

function elementRequests(elements: readonly NftElement[]): NetlinkRequest[] {
  const bySet = Map.groupBy(elements, ({ set }) => set.name);
  return [...bySet.values()].flatMap((group) => {
    const [first] = group;
    return first === undefined ? [] : chunks(group).map((part) => addElements(first.set, part));
  });
}
