import { portmapChain, type Attachment } from '../../shared/packetfilter/names.ts';
import { changeNft, removeFromNft, readNft } from '../../shared/packetfilter/nftables/change.ts';
import type { NftReader } from '../../shared/packetfilter/nftables/reader.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { PortmapBackend, Released } from './backend.ts';
import { containerRules, ownerText, tableOf } from './nftables-objects.ts';
import { deadHolders, missingForwarding, putRequests } from './nftables-put.ts';
import {
  referenceForwards,
  referenceRemoval,
  referenceTable,
  replaceReference,
} from './nftables-reference.ts';
import { removal } from './nftables-removal.ts';

/** Ports forwarded by maps of a table of our own: a connection, an ADD and a DEL cost the same with one and with ten thousand. */
export const nftablesBackend: PortmapBackend = {
  prepare: (forwardings) => {
    for (const forwarding of forwardings) containerRules(forwarding);
  },

  put: (forwarding, warn) =>
    changeNft({ what: 'forward ports' }, (view) => [
      ...replaceReference(view, forwarding, warn),
      ...putRequests(view, forwarding, warn),
    ]),

  makeWay: (forwarding, warn) => {
    let released: Released[] = [];
    removeFromNft({ what: 'make way for mapped ports' }, (view) => {
      released = [];
      if (isUnused(view, [forwarding.family])) return [];
      const names = [portmapChain(forwarding), ...deadHolders(view, forwarding, warn)];
      const removed = removal(view, forwarding.family, names);
      released = [...removed.released];
      return [...replaceReference(view, forwarding, warn), ...removed.requests];
    });
    return released;
  },

  remove: (attachment, families) => {
    let released: Released[] = [];
    removeFromNft({ what: 'stop forwarding ports' }, (view) => {
      released = [];
      if (isUnused(view, families)) return [];
      const removals = families.flatMap((family) => [
        removal(view, family, [portmapChain(attachment)]),
        referenceRemoval(view, family, attachment.containerId),
      ]);
      released = removals.flatMap((one) => one.released);
      return removals.flatMap(({ requests }) => requests);
    });
    return released;
  },

  missing: (forwardings) =>
    readNft((view) => {
      for (const forwarding of forwardings) {
        const missing = missingForwarding(view, forwarding);
        if (missing !== undefined && !referenceForwards(view, forwarding)) return missing;
      }
      return undefined;
    }),

  collect: (network, valid) => {
    let released: Released[] = [];
    removeFromNft({ what: 'remove stale port mappings' }, (view) => {
      const removals = FAMILIES.map((family) =>
        removal(view, family, garbageChains(view, family, network, valid)),
      );
      released = removals.flatMap((one) => one.released);
      return removals.flatMap(({ requests }) => requests);
    });
    return released;
  },
};

const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

/** As on every host that forwards ports with iptables. */
function isUnused(view: NftReader, families: readonly Family[]): boolean {
  return !view.hasAnyTable(families.flatMap((family) => [tableOf(family), referenceTable(family)]));
}

function garbageChains(
  view: NftReader,
  family: Family,
  network: string,
  valid: readonly { readonly containerID: string }[],
): string[] {
  const live = new Set(valid.map(({ containerID }) => portmapChain({ network, containerId: containerID })));
  const ours = ownerText({ network, containerId: '' } satisfies Attachment);
  return view
    .chains(tableOf(family))
    .filter(({ name, comment }) => comment?.startsWith(ours) === true && !live.has(name))
    .map(({ name }) => name);
}
