import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import { commentOf, isUnmanaged } from '../../../shared/packetfilter/compare.ts';
import { namedChains } from '../../../shared/packetfilter/changed-table.ts';
import {
  attachmentOfComment,
  oldPortmapSourceChain,
  portmapChain,
  portmapComment,
} from '../../../shared/packetfilter/names.ts';
import { PortRanges } from '../../../shared/packetfilter/port-ranges.ts';
import type {
  Family,
  PacketFilterDriver,
  PlannedChange,
  Rule,
  TableChange,
  TableState,
} from '../../../shared/packetfilter/ruleset.ts';
import {
  applyWherePossible,
  chooseDriver,
  driversWithRules,
  missingEverywhere,
  otherDrivers,
  removeEverywhere,
} from '../../../shared/packetfilter/select.ts';
import type { ChangedKey, ForwardedPorts, PortForwarding, PortmapBackend } from '../backend.ts';
import { resolveConflicts, type PortConflict } from '../conflicts.ts';
import { HostPortIndex, hostPortsOf, isProtocol } from '../mapping.ts';
import { FAMILIES } from '../plan.ts';
import { forwardedBy, missingRule } from './check.ts';
import { readConditions } from './conditions.ts';
import { DNAT_CHAIN, portmapChange } from './plan.ts';

/** Forwards ports by chains of iptables' table nat, as the reference does. */
export const iptablesBackend: PortmapBackend = {
  // Only iptables itself can judge conditions; it does when it loads the rules, all or none.
  prepare: () => undefined,

  add: (forwarding, warn) => {
    chooseDriver({ rawArgs: hasRawArgs(forwarding) }).apply([addition(forwarding, warn)]);
  },

  // The other variant of iptables has rules when the host's `iptables` was switched since.
  removeConflicts: (forwarding, { isChosen, warn }) => {
    const removed: ForwardedPorts[] = [];
    const own = portmapChain(forwarding);
    const change = deletion(forwarding.family, removed, [own, DNAT_CHAIN], (state) => [
      ...(state.chains.has(own) ? [own] : []),
      ...deadChains(state, forwarding, warn),
    ]);
    for (const driver of isChosen ? otherDrivers() : driversWithRules()) {
      applyWherePossible(driver, [change], warn);
    }
    return removed;
  },

  remove: (attachment, families, warn) => {
    const removed: ForwardedPorts[] = [];
    const chains = [portmapChain(attachment), oldPortmapSourceChain(attachment)];
    const changes = families.map((family) =>
      deletion(family, removed, [...chains, DNAT_CHAIN], (state) =>
        chains.filter((chain) => state.chains.has(chain)),
      ),
    );
    removeEverywhere(changes, warn);
    return removed;
  },

  missing: (forwardings, changed) => {
    for (const forwarding of forwardings) {
      const rawArgs = hasRawArgs(forwarding);
      const missing = missingEverywhere(
        forwarding.family,
        (driver) => {
          const found = new Set<ChangedKey>();
          const missing = missingRule(read(driver, forwarding, rawArgs), forwarding, found);
          if (missing === undefined) for (const key of found) changed.add(key);
          return missing;
        },
        { rawArgs },
      );
      if (missing !== undefined) return missing;
    }
    return undefined;
  },

  collect: (network, valid, warn) => {
    const removed: ForwardedPorts[] = [];
    const changes = FAMILIES.map((family) =>
      deletion(family, removed, [DNAT_CHAIN], (state) => staleChains(state, network, valid)),
    );
    // A container's conditions may be matches that only iptables can print; its rule's comment is needed all the same.
    removeEverywhere(changes, warn, { rawArgs: true });
    return removed;
  },
};

/** The conditions of an earlier ADD may be matches that only iptables can print. */
function read(driver: PacketFilterDriver, forwarding: PortForwarding, rawArgs: boolean): TableState {
  const chains = namedChains(portmapChange(forwarding));
  const state = driver.read(forwarding.family, 'nat', chains);
  const isReadable = !state.jumps(DNAT_CHAIN, portmapChain(forwarding)).some(isUnmanaged);
  return rawArgs || isReadable || driver.name !== chooseDriver().name
    ? state
    : chooseDriver({ rawArgs: true }).read(forwarding.family, 'nat', chains);
}

/** The container's rules, and the removal of dead containers that forward one of its ports. */
function addition(forwarding: PortForwarding, warn: (line: string) => void): PlannedChange {
  const { family, settings } = forwarding;
  const wanted = portmapChange(forwarding);
  const plan = (state: TableState): Omit<TableChange, 'family' | 'table'> => {
    requireChain(settings.externalSetMarkChain, settings.snat, state);
    return { ...wanted, deleteChains: deadChains(state, forwarding, warn) };
  };
  return { family, table: 'nat', reads: [DNAT_CHAIN, ...namedChains(wanted)], plan };
}

/** Removal of the chains that `toDelete` selects; their ports are added to `removed`. */
function deletion(
  family: Family,
  removed: ForwardedPorts[],
  reads: readonly string[],
  toDelete: (state: TableState) => readonly string[],
): PlannedChange {
  const plan = (state: TableState): Omit<TableChange, 'family' | 'table'> => {
    const chains = toDelete(state);
    removed.push(...chains.flatMap((chain) => forwardedBy(state, chain)));
    return { deleteChains: chains };
  };
  return { family, table: 'nat', reads, plan };
}

/** Chains of dead containers that forward ports of this one. @throws CniError 11 when one of the containers is running */
function deadChains(state: TableState, forwarding: PortForwarding, warn: (line: string) => void): string[] {
  if (forwarding.settings.portConflict === 'reference') return [];
  return resolveConflicts(forwarding, conflictsOf(state, forwarding), warn).map(({ chain }) => chain);
}

/**
 * Chains of other containers that forward a port of this one. The ports that a rule of CNI-HOSTPORT-DNAT names decide whether the chain
 * it jumps to is read at all. The same container on another network is no conflict.
 */
function conflictsOf(state: TableState, forwarding: PortForwarding): (PortConflict & { chain: string })[] {
  const own = portmapChain(forwarding);
  const ports = forwarding.mappings.map(hostPortsOf);
  const wanted = new HostPortIndex(ports);
  const candidates = new Map<string, Rule>();
  for (const rule of state.forPorts(DNAT_CHAIN, new PortRanges(ports))) {
    if (isUnmanaged(rule) || rule.target.kind !== 'jump' || rule.target.chain === own) continue;
    if (namesOneOf(rule, wanted)) candidates.set(rule.target.chain, rule);
  }
  return [...candidates].flatMap(([chain, rule]) => {
    const owner = attachmentOfComment(commentOf(rule) ?? '');
    if (owner?.containerId === forwarding.containerId) return [];
    const used = forwardedBy(state, chain).find((one) => wanted.overlaps(one));
    return used === undefined ? [] : [{ ...used, chain, owner }];
  });
}

function namesOneOf({ protocol, matches = [] }: Rule, wanted: HostPortIndex): boolean {
  if (!isProtocol(protocol)) return false;
  const ports = matches.find((match) => match.kind === 'multiport')?.destinationPorts ?? [];
  return ports.some((range) => wanted.overlaps({ ...range, protocol, address: undefined }));
}

/** Chains to which rules of CNI-HOSTPORT-DNAT jump whose comment names a container of the network that is not valid. */
function staleChains(
  state: TableState,
  network: string,
  valid: readonly { readonly containerID: string }[],
): string[] {
  const live = new Set(valid.map(({ containerID }) => portmapChain({ network, containerId: containerID })));
  const ownComment = portmapComment({ network, containerId: '' }).slice(0, -1);
  // Truncated within the network's name: it could be another network's.
  if (!ownComment.endsWith('id: "')) return [];
  const chains = (state.chains.get(DNAT_CHAIN) ?? []).flatMap((rule) => {
    if (isUnmanaged(rule) || rule.target.kind !== 'jump') return [];
    return commentOf(rule)?.startsWith(ownComment) === true && !live.has(rule.target.chain)
      ? [rule.target.chain]
      : [];
  });
  return [...new Set(chains)];
}

/** Whether conditions use matches that this suite does not know: the extensions of iptables are many. */
export function hasRawArgs({ family, settings }: PortForwarding): boolean {
  return readConditions(family, settings.conditions[family]).some(({ matches }) =>
    matches?.some(({ kind }) => kind === 'rawArgs'),
  );
}

function requireChain(chain: string | undefined, snat: boolean, state: TableState): void {
  if (chain === undefined || !snat || state.chains.has(chain)) return;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `"externalSetMarkChain": table nat (${state.family}) has no chain ${JSON.stringify(chain)}`,
    { details: 'another program creates it, for example kube-proxy (KUBE-MARK-MASQ), and must run first' },
  );
}
