import { changeNft, removeFromNft, readNft } from '../../../shared/packetfilter/nftables/change.ts';
import type { NftReader } from '../../../shared/packetfilter/nftables/reader.ts';
import { portmapChain } from '../../../shared/packetfilter/names.ts';
import type { Family } from '../../../shared/packetfilter/ruleset.ts';
import type { ForwardedPorts, PortmapBackend } from '../backend.ts';
import { FAMILIES } from '../plan.ts';
import { containerRules, ownerText, tableOf } from './plan.ts';
import { referenceForwards, referenceRemoval, referenceReplacement, referenceTable } from './reference.ts';
import { missingObject } from './check.ts';
import { additionRequests, deadChains, removalRequests, type Removal } from './requests.ts';

/** Forwards ports by maps of nf_tables. A connection, an ADD and a DEL cost the same with one mapping and with ten thousand. */
export const nftablesBackend: PortmapBackend = {
  prepare: (forwardings) => {
    for (const forwarding of forwardings) containerRules(forwarding);
  },

  add: (forwarding, warn) =>
    changeNft({ what: 'add port mappings' }, (reader) => [
      ...referenceReplacement(reader, forwarding, warn),
      ...additionRequests(reader, forwarding, warn),
    ]),

  removeConflicts: (forwarding, { isChosen, warn }) =>
    removeAll('remove conflicting port mappings', (reader) => {
      if (isChosen || hasNoTables(reader, [forwarding.family])) return [];
      const chains = [portmapChain(forwarding), ...deadChains(reader, forwarding, warn)];
      return [
        { requests: referenceReplacement(reader, forwarding, warn), removed: [] },
        removalRequests(reader, forwarding.family, chains),
      ];
    }),

  remove: (attachment, families) =>
    removeAll('remove port mappings', (reader) => {
      if (hasNoTables(reader, families)) return [];
      return families.flatMap((family) => [
        removalRequests(reader, family, [portmapChain(attachment)]),
        referenceRemoval(reader, family, attachment.containerId),
      ]);
    }),

  missing: (forwardings, changed) =>
    readNft((reader) => {
      for (const forwarding of forwardings) {
        const missing = missingObject(reader, forwarding, changed);
        if (missing !== undefined && !referenceForwards(reader, forwarding)) return missing;
      }
      return undefined;
    }),

  collect: (network, valid) =>
    removeAll('remove stale port mappings', (reader) =>
      FAMILIES.map((family) => removalRequests(reader, family, staleChains(reader, family, network, valid))),
    ),
};

/** Commits all removals in one transaction. @returns the ports whose rules were removed */
function removeAll(what: string, plan: (reader: NftReader) => readonly Removal[]): ForwardedPorts[] {
  let removed: ForwardedPorts[] = [];
  removeFromNft({ what }, (reader) => {
    const removals = plan(reader);
    removed = removals.flatMap((one) => one.removed);
    return removals.flatMap(({ requests }) => requests);
  });
  return removed;
}

/** The case on every host that forwards ports with iptables; one request answers it. */
function hasNoTables(reader: NftReader, families: readonly Family[]): boolean {
  return !reader.hasAnyTable(families.flatMap((family) => [tableOf(family), referenceTable(family)]));
}

function staleChains(
  reader: NftReader,
  family: Family,
  network: string,
  valid: readonly { readonly containerID: string }[],
): string[] {
  const live = new Set(valid.map(({ containerID }) => portmapChain({ network, containerId: containerID })));
  const ownComment = ownerText({ network, containerId: '' });
  return reader
    .chains(tableOf(family))
    .filter(({ name, comment }) => comment?.startsWith(ownComment) === true && !live.has(name))
    .map(({ name }) => name);
}
