import { KnownAttachments } from '../../shared/attachments/attachments.ts';
import { CniCode, CniError, toCniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { NetworkNamespace } from '../../shared/kernel/namespace.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import {
  canonicalAddress,
  isGlobalUnicast,
  parseAddress,
  withoutPrefixLength,
} from '../../shared/net/address.ts';

/**
 * Whether CNI_NETNS is still the container's own namespace. Runtimes pass paths such as /proc/PID/ns/net, and by the time of a call the process id
 * may be another container's. The namespace's addresses tell: who leases them, and whether they are those of prevResult or of the cached result.
 */
type Call = Pick<Invocation<unknown>, 'network' | 'containerId' | 'ifname' | 'netns' | 'prevResult' | 'warn'>;

/**
 * For ADD, which refuses only what is certain: the namespace has no address of prevResult, and another container leases those that it has.
 * @throws CniError 8
 */
export function requireOwnNamespace(namespace: NetworkNamespace, call: Call): void {
  const given = addressesOf(call);
  const present = given.length === 0 ? [] : globalAddresses(namespace);
  if (present.some((address) => given.includes(address))) return;
  const owner = leaseOfOther(new KnownAttachments(call), present, call);
  if (owner === undefined) return;
  throw new CniError(
    CniCode.InvalidNetworkNamespace,
    `network namespace ${call.netns} belongs to another container: ${owner}`,
    { details: 'CNI_NETNS must be the namespace of CNI_CONTAINERID; its process may have ended' },
  );
}

/**
 * For DEL, which can leave a namespace alone because the rules end with it: why the namespace is another container's.
 * @returns undefined if nothing says so, or if it cannot be determined: DEL must make progress
 */
export function reasonNotToChange(namespace: NetworkNamespace, call: Call): string | undefined {
  try {
    const present = globalAddresses(namespace);
    const known = new KnownAttachments(call);
    const given = [
      ...addressesOf(call),
      ...known
        .cachedResults(call.containerId)
        .filter(({ ifname }) => ifname === call.ifname)
        .flatMap((cached) => cached.addresses.map(withoutPrefix)),
    ];
    const isOther =
      given.length > 0 && present.length > 0 && !present.some((address) => given.includes(address));
    return (
      leaseOfOther(known, present, call) ??
      (isOther ? `it has the address ${present[0]} and none of this container's` : undefined)
    );
  } catch (thrown) {
    call.warn(`cannot verify the owner of ${call.netns}: ${toCniError(thrown).message}`);
    return undefined;
  }
}

/** Undefined also when this container leases one of the addresses. */
function leaseOfOther(
  known: KnownAttachments,
  present: readonly string[],
  { containerId }: Call,
): string | undefined {
  const leases = present.flatMap((address) => known.leasesOfAddress(address));
  const [lease] = leases;
  if (lease === undefined || leases.some((one) => one.containerId === containerId)) return undefined;
  return `its address ${lease.address} is leased to ${lease.containerId}`;
}

function addressesOf({ prevResult }: Call): string[] {
  return (prevResult?.ips ?? []).map(({ address }) => withoutPrefix(address));
}

/** Canonical, without prefix length, and without those that every namespace has: loopback and link-local addresses. */
function globalAddresses(namespace: NetworkNamespace): string[] {
  using rtnetlink = Rtnetlink.openIn(namespace);
  return addresses(rtnetlink)
    .map(({ address }) => withoutPrefix(address))
    .filter((text) => {
      const address = parseAddress(text);
      return address !== undefined && isGlobalUnicast(address);
    });
}

function withoutPrefix(cidr: string): string {
  const address = withoutPrefixLength(cidr);
  return canonicalAddress(address) ?? address;
}
