import type { NetworkNamespace } from '../kernel/namespace.ts';
import { addresses } from '../kernel/rtnetlink/addresses.ts';
import { links } from '../kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../kernel/rtnetlink/rtnetlink.ts';
import { canonicalAddress, isGlobalUnicast, parseAddress } from '../net/address.ts';
import { KnownAttachments } from './attachments.ts';

/** An attachment whose namespace is to be changed. */
export interface NamespaceUser {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
  /** Addresses in prevResult, with prefix length. */
  readonly addresses: readonly string[];
}

/**
 * What tells that a network namespace belongs to another container. Runtimes pass paths such as /proc/PID/ns/net, and the process id may be
 * another container's by the time of a DEL.
 *
 * - `lease`: the namespace's addresses are leased to other containers only; `containerId` is one of them. With `hasGivenAddress` the lease may be a
 *   stale one of an address that the attachment has now.
 * - `addresses`: the namespace has addresses, but none of those that the attachment was given.
 * - undefined: nothing of the kind, e.g. the namespace has no address, or nothing is known about it.
 */
export type OtherOwner =
  | {
      readonly by: 'lease';
      readonly containerId: string;
      readonly address: string;
      readonly hasGivenAddress: boolean;
    }
  | { readonly by: 'addresses'; readonly address: string };

/** Costs a netlink dump inside the namespace and a lease file per address and network. */
export function otherOwnerOf(namespace: NetworkNamespace, user: NamespaceUser): OtherOwner | undefined {
  const present = globalAddresses(namespace);
  const [first] = present;
  if (first === undefined) return undefined;
  const known = new KnownAttachments(user);
  const leases = present.flatMap((address) => known.leasesOfAddress(address));
  if (leases.some(({ containerId }) => containerId === user.containerId)) return undefined;
  const given = [
    ...user.addresses,
    ...known
      .cachedResults(user.containerId)
      .filter(({ ifname }) => ifname === user.ifname)
      .flatMap((result) => result.addresses),
  ].map(withoutPrefix);
  const hasGivenAddress = present.some((address) => given.includes(address));
  const [lease] = leases;
  if (lease !== undefined) {
    return { by: 'lease', containerId: lease.containerId, address: lease.address, hasGivenAddress };
  }
  if (given.length === 0 || hasGivenAddress) return undefined;
  return { by: 'addresses', address: first };
}

/** Canonical, without prefix length; those of loopback interfaces and link-local ones are left out, because every namespace has the same. */
function globalAddresses(namespace: NetworkNamespace): string[] {
  using rtnetlink = Rtnetlink.openIn(namespace);
  const loopback = links(rtnetlink)
    .filter(({ name }) => name === 'lo')
    .map(({ index }) => index);
  return addresses(rtnetlink)
    .filter(({ index }) => !loopback.includes(index))
    .map(({ address }) => withoutPrefix(address))
    .filter((text) => {
      const address = parseAddress(text);
      return address !== undefined && isGlobalUnicast(address);
    });
}

function withoutPrefix(cidr: string): string {
  const address = cidr.replace(/\/\d+$/, '');
  return canonicalAddress(address) ?? address;
}
