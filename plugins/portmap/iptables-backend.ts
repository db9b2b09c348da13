import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { commentOf, isUnmanaged } from '../../shared/packetfilter/compare.ts';
import { namedChains } from '../../shared/packetfilter/changed-table.ts';
import { oldPortmapSourceChain, portmapChain, portmapComment } from '../../shared/packetfilter/names.ts';
import type { Family, PlannedChange, TableChange, TableState } from '../../shared/packetfilter/ruleset.ts';
import { applyWherePossible, chooseDriver } from '../../shared/packetfilter/select.ts';
import type { Forwarding, PortmapBackend, Released } from './backend.ts';
import { readConditions } from './conditions.ts';
import { missingPorts } from './iptables-check.ts';
import { conflictsOf } from './iptables-conflicts.ts';
import { releasedOf } from './iptables-forwarded.ts';
import { DNAT_CHAIN, portmapChange } from './iptables-rules.ts';
import { refuseOrTakeOver } from './holders.ts';

/** Ports forwarded by chains of iptables' table nat, as the reference does it. */
export const iptablesBackend: PortmapBackend = {
  // What the words of a condition mean, iptables alone knows, and it is asked with the rules.
  prepare: () => undefined,

  put: (forwarding, warn) => {
    chooseDriver({ rawArgs: hasRawArgs(forwarding) }).apply([putChange(forwarding, warn)]);
  },

  makeWay: (forwarding, warn) => {
    const released: Released[] = [];
    const own = portmapChain(forwarding);
    const change = deletion(forwarding.family, released, [own, DNAT_CHAIN], (state) => [
      ...(state.chains.has(own) ? [own] : []),
      ...deadHolders(state, forwarding, warn),
    ]);
    applyWherePossible(chooseDriver(), [change], warn);
    return released;
  },

  remove: (attachment, families, warn) => {
    const released: Released[] = [];
    const chains = [portmapChain(attachment), oldPortmapSourceChain(attachment)];
    const changes = families.map((family) =>
      deletion(family, released, [...chains, DNAT_CHAIN], (state) =>
        chains.filter((chain) => state.chains.has(chain)),
      ),
    );
    applyWherePossible(chooseDriver(), changes, warn);
    return released;
  },

  missing: (forwardings) => {
    for (const forwarding of forwardings) {
      const driver = chooseDriver({ rawArgs: hasRawArgs(forwarding) });
      const state = driver.read(forwarding.family, 'nat', namedChains(portmapChange(forwarding)));
      const missing = missingPorts(state, forwarding);
      if (missing !== undefined) return missing;
    }
    return undefined;
  },

  collect: (network, valid, warn) => {
    const released: Released[] = [];
    const changes = (['ipv4', 'ipv6'] as const).map((family) =>
      deletion(family, released, [DNAT_CHAIN], (state) => garbageChains(state, network, valid)),
    );
    // Any container's conditions may be in words, and without its rule's comment a chain is not known to be garbage.
    applyWherePossible(chooseDriver({ rawArgs: true }), changes, warn);
    return released;
  },
};

/** The container's rules, and the removal of dead containers' that are in their way. */
function putChange(forwarding: Forwarding, warn: (line: string) => void): PlannedChange {
  const { family, settings } = forwarding;
  const wanted = portmapChange(forwarding);
  const plan = (state: TableState): Omit<TableChange, 'family' | 'table'> => {
    needChain(settings.externalSetMarkChain, settings.snat, state);
    return { ...wanted, deleteChains: deadHolders(state, forwarding, warn) };
  };
  return { family, table: 'nat', reads: [DNAT_CHAIN, ...namedChains(wanted)], plan };
}

/** Chains of dead containers that hold ports which this one wants. @throws CniError 11 when one of them lives */
function deadHolders(state: TableState, forwarding: Forwarding, warn: (line: string) => void): string[] {
  if (forwarding.settings.portConflict === 'reference') return [];
  return refuseOrTakeOver(forwarding, conflictsOf(state, forwarding), warn).map(({ chain }) => chain);
}

function deletion(
  family: Family,
  released: Released[],
  reads: readonly string[],
  doomed: (state: TableState) => readonly string[],
): PlannedChange {
  const plan = (state: TableState): Omit<TableChange, 'family' | 'table'> => {
    const chains = doomed(state);
    released.push(...chains.flatMap((chain) => releasedOf(state, chain)));
    return { deleteChains: chains };
  };
  return { family, table: 'nat', reads, plan };
}

/** Chains that a rule of CNI-HOSTPORT-DNAT says to be for a container of this network that is not valid any more. */
function garbageChains(
  state: TableState,
  network: string,
  valid: readonly { readonly containerID: string }[],
): string[] {
  const live = new Set(valid.map(({ containerID }) => portmapChain({ network, containerId: containerID })));
  const ours = portmapComment({ network, containerId: '' }).slice(0, -1);
  const chains = (state.chains.get(DNAT_CHAIN) ?? []).flatMap((rule) => {
    if (isUnmanaged(rule) || rule.target.kind !== 'jump') return [];
    return commentOf(rule)?.startsWith(ours) === true && !live.has(rule.target.chain)
      ? [rule.target.chain]
      : [];
  });
  return [...new Set(chains)];
}

/** Conditions that name a match we do not know: iptables' extensions are many. */
function hasRawArgs({ family, settings }: Forwarding): boolean {
  return readConditions(family, settings.conditions[family]).some(({ matches }) =>
    matches?.some(({ kind }) => kind === 'rawArgs'),
  );
}

function needChain(chain: string | undefined, snat: boolean, state: TableState): void {
  if (chain === undefined || !snat || state.chains.has(chain)) return;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `"externalSetMarkChain" is ${JSON.stringify(chain)}, and table nat (${state.family}) has no such chain`,
    {
      details: 'it is made by another program, for example kube-proxy (KUBE-MARK-MASQ), which must run first',
    },
  );
}
