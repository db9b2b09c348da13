import { portmapChain, type Attachment } from '../../shared/packetfilter/names.ts';
import { changeNft, viewNft } from '../../shared/packetfilter/nftables/change.ts';
import type { NftView } from '../../shared/packetfilter/nftables/view.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { PortmapBackend, Released } from './backend.ts';
import { ownerText, tableOf } from './nftables-objects.ts';
import { missingForwarding, putRequests } from './nftables-put.ts';
import { referenceRemoval } from './nftables-reference.ts';
import { removal } from './nftables-removal.ts';

/** Ports forwarded by maps of a table of our own: a connection, an ADD and a DEL cost the same with one and with ten thousand. */
export const nftablesBackend: PortmapBackend = {
  put: (forwarding, warn) =>
    changeNft({ what: 'forward ports' }, (view) => putRequests(view, forwarding, warn)),

  remove: (attachment, families) => {
    let released: Released[] = [];
    changeNft({ what: 'stop forwarding ports' }, (view) => {
      const removals = families.map((family) => removal(view, family, portmapChain(attachment)));
      released = removals.flatMap((one) => one.released);
      return [
        ...removals.flatMap(({ requests }) => requests),
        ...families.flatMap((family) => referenceRemoval(view, family, attachment.containerId)),
      ];
    });
    return released;
  },

  missing: (forwardings) =>
    viewNft((view) => {
      for (const forwarding of forwardings) {
        const missing = missingForwarding(view, forwarding);
        if (missing !== undefined) return missing;
      }
      return undefined;
    }),

  collect: (network, valid) => {
    let released: Released[] = [];
    changeNft({ what: 'remove stale port mappings' }, (view) => {
      const removals = FAMILIES.flatMap((family) =>
        garbageChains(view, family, network, valid).map((chain) => removal(view, family, chain)),
      );
      released = removals.flatMap((one) => one.released);
      return removals.flatMap(({ requests }) => requests);
    });
    return released;
  },
};

const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

function garbageChains(
  view: NftView,
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
