import { KnownAttachments } from '../../shared/attachments/attachments.ts';
import { lookupRoute } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';

type Valid = readonly { readonly containerID: string; readonly ifname: string }[];

/**
 * Of the addresses that accept rules are about, those of containers of this network that the runtime does not know any more. The
 * rules say nothing but the address, so it must be shown to be nobody's, and to be of this network:
 *
 * - leased in this network's own files to an attachment that is not valid; or
 * - leased by nobody, held by no network namespace of this host, and directly connected through the same link as an
 *   address that this network leases or leased last. (IPAM's GC runs before ours and removes stale leases.)
 *
 * Networks whose addresses host-local does not manage leave no trace to go by: their rules go with DEL only.
 */
export function garbageAddresses(network: string, valid: Valid, candidates: readonly string[]): string[] {
  const known = new KnownAttachments({ network, thorough: true });
  const unleased: string[] = [];
  const stale: string[] = [];
  for (const address of candidates) {
    const leases = known.leasesOfAddress(address);
    if (leases.length === 0) unleased.push(address);
    else if (leases.every((lease) => lease.network === network && !isValid(lease, valid)))
      stale.push(address);
  }
  if (unleased.length === 0) return stale;
  const dead = unleased.filter((address) => !known.mayBeAlive({ address }));
  return [...stale, ...ofNetwork(known, dead)];
}

function isValid(
  { containerId, ifname }: { readonly containerId: string; readonly ifname: string | undefined },
  valid: Valid,
): boolean {
  return valid.some((one) => one.containerID === containerId && (ifname ?? one.ifname) === one.ifname);
}

function ofNetwork(network: KnownAttachments, addresses: readonly string[]): string[] {
  if (addresses.length === 0) return [];
  using rtnetlink = Rtnetlink.open();
  const linkTo = (address: string): number | undefined => {
    const route = lookupRoute(rtnetlink, address);
    return route?.gateway === undefined ? route?.link : undefined;
  };
  const known = new Set(
    [...network.lastReserved(), ...network.leases().map(({ address }) => address)].map(linkTo),
  );
  known.delete(undefined);
  return addresses.filter((address) => known.has(linkTo(address)));
}
