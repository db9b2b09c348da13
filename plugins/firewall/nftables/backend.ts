import { addressFromBytes, formatAddress } from '../../../shared/net/address.ts';
import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import { changeNft, removeFromNft, readNft } from '../../../shared/packetfilter/nftables/change.ts';
import { deleteElements } from '../../../shared/packetfilter/nftables/messages.ts';
import type { NftReader } from '../../../shared/packetfilter/nftables/reader.ts';
import type { Family } from '../../../shared/packetfilter/ruleset.ts';
import type { FirewallBackend, Garbage } from '../backend.ts';
import type { FirewallSettings } from '../config.ts';
import { missingFromTable } from './missing.ts';
import {
  containerElement,
  containersSet,
  FAMILIES,
  networkPrefix,
  OWN_CHAINS,
  ownerComment,
} from './objects.ts';
import { putRequests } from './difference.ts';
import { warnOfIneffective } from './warnings.ts';
import { warnOfDrops } from '../warnings.ts';
import type { Departing, Subject } from '../plan.ts';

/** A table of our own in nf_tables (see nftables-objects.ts), written over netlink: no program is needed. */
export const nftablesBackend: FirewallBackend = {
  ready: () => readNft((view) => void view.tables()),

  allow: (settings, subject, warn) => {
    refuseOwnName(settings);
    changeNft({ what: 'let the container through the firewall' }, (view) =>
      putRequests(view, settings, subject),
    );
    warnOfDrops(subject, warn);
    warnOfIneffective(settings, subject, warn);
  },

  forget: (departing) =>
    removeFromNft({ what: "remove the container's firewall rules" }, (view) => removal(view, departing)),

  missing: (settings, subject) => readNft((view) => missingFromTable(view, settings, subject)),

  collect: (garbage) =>
    removeFromNft({ what: 'remove stale firewall rules' }, (view) =>
      FAMILIES.flatMap((family) => garbageRemoval(view, family, garbage)),
    ),
};

/** The policy of a bridge alone, for containers that something else lets through: a drop here cannot be overruled. */
export const ingressPolicy = {
  enforce: (settings: FirewallSettings, subject: Subject): void => {
    if (settings.ingressPolicy === 'open') return;
    refuseOwnName(settings);
    changeNft({ what: 'enforce the ingress policy' }, (view) =>
      putRequests(view, settings, withoutAddresses(subject)),
    );
  },
  /** For CHECK. */
  missing: (settings: FirewallSettings, subject: Subject): string | undefined =>
    settings.ingressPolicy === 'open'
      ? undefined
      : readNft((view) => missingFromTable(view, settings, withoutAddresses(subject))),
};

function withoutAddresses(subject: Subject): Subject {
  return { ...subject, addresses: { ipv4: [], ipv6: [] } };
}

function refuseOwnName({ adminChain }: FirewallSettings): void {
  if (!OWN_CHAINS.includes(adminChain)) return;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `"iptablesAdminChainName": ${adminChain} is the name of a chain of the plugin's own table`,
    { details: `any name but ${OWN_CHAINS.join(', ')} will do` },
  );
}

/** Elements are asked for by address, and go when they are this container's by their comment. */
function removal(view: NftReader, departing: Departing): NetlinkRequest[] {
  const own = FAMILIES.flatMap((family) =>
    departing.addresses[family].map((host) => containerElement(departing, family, host)),
  );
  return own
    .filter(({ set, key, comment }) => {
      const standing = view.element(set, key);
      return standing !== undefined && standing.comment === comment;
    })
    .map(({ set, key }) => deleteElements(set, [key]));
}

/** GC alone looks at every element. One whose comment was cut within the network's name says nothing certain, and stays. */
function garbageRemoval(view: NftReader, family: Family, { network, valid }: Garbage): NetlinkRequest[] {
  const prefix = networkPrefix(network);
  if (prefix === undefined) return [];
  const live = new Set(valid.map(({ containerID }) => ownerComment({ network, containerId: containerID })));
  const set = containersSet(family);
  return view
    .elements(set)
    .filter(({ comment }) => comment?.startsWith(prefix) === true && !live.has(comment))
    .flatMap(({ key }) => {
      const address = addressFromBytes(key);
      return address === undefined ? [] : [deleteElements(set, [[formatAddress(address)]])];
    });
}
