import { addressFromBytes, formatAddress } from '../../../shared/net/address.ts';
import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import { changeNft, readNft, removeFromNft } from '../../../shared/packetfilter/nftables/change.ts';
import { deleteElements } from '../../../shared/packetfilter/nftables/messages.ts';
import type { NftReader } from '../../../shared/packetfilter/nftables/reader.ts';
import type { Family } from '../../../shared/packetfilter/ruleset.ts';
import type { Collection, ConfigurationChange, FirewallBackend, Removal } from '../backend.ts';
import { FAMILIES, type FirewallPlan } from '../plan.ts';
import { warnOfIneffective } from '../warnings.ts';
import { missingFromTable, missingIngressPolicy, missingRequests } from './difference.ts';
import {
  completeOwnerComment,
  containerElement,
  containersSet,
  networkPrefix,
  OWN_CHAINS,
  ownerComment,
} from './objects.ts';

/** A table of its own in nf_tables (see objects.ts), written over netlink: the host needs no program. */
export const nftablesBackend: FirewallBackend = {
  ready: () => readNft((reader) => void reader.tables()),

  add: (plan, warn) => {
    rejectOwnChain(plan);
    changeNft({ what: 'let the container through the firewall' }, (reader) =>
      missingRequests(reader, [plan]),
    );
    warnOfIneffective(plan, warn);
  },

  remove: (removal) =>
    removeFromNft({ what: "remove the container's firewall rules" }, (reader) =>
      FAMILIES.flatMap((family) => elementsOf(reader, family, removal)),
    ),

  missing: (plan, changed) => readNft((reader) => missingFromTable(reader, plan, changed)),

  collect: (collection) =>
    removeFromNft({ what: 'remove stale firewall rules' }, (reader) =>
      FAMILIES.flatMap((family) => staleElements(reader, family, collection)),
    ),
};

/** The ingress policy alone, for containers that another firewall accepts: it cannot overrule a drop in this table. */
export const ingressPolicy = {
  enforce: (plan: FirewallPlan): void => {
    if (plan.ingressPolicy === 'open') return;
    rejectOwnChain(plan);
    changeNft({ what: 'enforce the ingress policy' }, (reader) =>
      missingRequests(reader, [withoutAddresses(plan)]),
    );
  },
  missing: (plan: FirewallPlan, changed: (change: ConfigurationChange) => void): string | undefined =>
    plan.ingressPolicy === 'open'
      ? undefined
      : readNft((reader) => missingIngressPolicy(reader, withoutAddresses(plan), changed)),
};

/** The plan of a container that another firewall accepts. */
export function withoutAddresses(plan: FirewallPlan): FirewallPlan {
  return { ...plan, addresses: { ipv4: [], ipv6: [] } };
}

function rejectOwnChain({ adminChain }: FirewallPlan): void {
  if (!OWN_CHAINS.includes(adminChain)) return;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `"iptablesAdminChainName": ${adminChain} is the name of a chain of the plugin's own table`,
    { details: `choose any name but ${OWN_CHAINS.join(', ')}` },
  );
}

/**
 * Elements are looked up by address and removed if their comment names this container. If no address is known, all elements are
 * listed, unless the comment was cut off and may be another container's too.
 */
function elementsOf(reader: NftReader, family: Family, removal: Removal): NetlinkRequest[] {
  const { ipv4, ipv6 } = removal.known;
  if (ipv4.length + ipv6.length === 0) {
    const comment = completeOwnerComment(removal);
    return comment === undefined ? [] : deletions(reader, family, (other) => other === comment);
  }
  return removal.known[family]
    .map((host) => containerElement(removal, family, host))
    .filter(({ set, key, comment }) => {
      const standing = reader.element(set, key);
      return standing !== undefined && standing.comment === comment;
    })
    .map(({ set, key }) => deleteElements(set, [key]));
}

/** GC lists every element. One whose comment was cut off within the network's name may be another network's, and stays. */
function staleElements(reader: NftReader, family: Family, { network, valid }: Collection): NetlinkRequest[] {
  const prefix = networkPrefix(network);
  if (prefix === undefined) return [];
  const live = new Set(valid.map(({ containerID }) => ownerComment({ network, containerId: containerID })));
  return deletions(reader, family, (comment) => comment?.startsWith(prefix) === true && !live.has(comment));
}

function deletions(
  reader: NftReader,
  family: Family,
  isStale: (comment: string | undefined) => boolean,
): NetlinkRequest[] {
  const set = containersSet(family);
  return reader
    .elements(set)
    .filter(({ comment }) => isStale(comment))
    .flatMap(({ key }) => {
      const address = addressFromBytes(key);
      return address === undefined ? [] : [deleteElements(set, [[formatAddress(address)]])];
    });
}
