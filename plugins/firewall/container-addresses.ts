import { existsSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { withoutPrefixLength } from '../../shared/net/address.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import { KnownAttachments } from '../../shared/attachments/attachments.ts';
import { RESULTS_DIR } from '../../shared/attachments/cached-results.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByIndex, linkByName, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { lookupRoute } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { isUnmanaged } from '../../shared/packetfilter/compare.ts';
import { masqueradeChain } from '../../shared/packetfilter/names.ts';
import { driversWithRules } from '../../shared/packetfilter/select.ts';
import type { Collection } from './backend.ts';
import { notedAddresses } from './noted-addresses.ts';
import { FAMILIES } from './plan.ts';

/*
 * Rules of iptables and sources of firewalld name nothing but an address: a comment would make them other rules to the reference's
 * DEL. So DEL and GC must find out which addresses are the container's, and that no other container has them now.
 */

/** What DEL knows of the container's addresses, without prefix length. */
export interface ContainerAddresses {
  /** Every address that the container is known to have had. */
  readonly known: readonly string[];
  /** Those that no other container has now. */
  readonly own: readonly string[];
}

type Call = Pick<Invocation<unknown>, 'network' | 'containerId' | 'netns' | 'ifname' | 'prevResult'>;

/**
 * The addresses of a container that is deleted. DEL runs a list backwards, so bridge and its IPAM still have theirs. The sources, until
 * one of them has an address that no other container has (prevResult may be of an earlier ADD, or another container's):
 *
 * 1. prevResult, and what ADD noted;
 * 2. the interface in the container's namespace, and the leases of this interface;
 * 3. the result that the runtime cached;
 * 4. the container's masquerading, whose rules carry its name.
 */
export function addressesOf(call: Call): ContainerAddresses {
  const attachments = new KnownAttachments({ network: call.network, containerId: call.containerId });
  const inNamespace = once(() => addressesInNamespace(call));
  const sources = [
    () => [...addressesOfResult(call), ...notedAddresses(call)],
    () => [...inNamespace(), ...leased(call, attachments)],
    () => cachedAddresses(call, attachments),
    () => masqueraded(call),
  ];
  const known: string[] = [];
  for (const source of sources) {
    const found = [...new Set(source().map(withoutPrefixLength))];
    known.push(...found);
    const own = found.filter((address) => !isOfAnother(address, call, inNamespace, attachments));
    if (own.length > 0) return { known, own };
  }
  return { known, own: [] };
}

/**
 * The addresses that an earlier ADD of this attachment got and the present one did not: after a lost lease, for example. Known from what that
 * ADD noted and from the result that the runtime cached.
 */
export function earlierAddresses(call: Call): ContainerAddresses {
  const attachments = new KnownAttachments({ network: call.network, containerId: call.containerId });
  // The usual ADD is the first one: one system call, whatever the number of containers.
  const isCached = existsSync(`${RESULTS_DIR}/${call.network}-${call.containerId}-${call.ifname}`);
  const present = addressesOfResult(call);
  const known = [...notedAddresses(call), ...(isCached ? cachedAddresses(call, attachments) : [])]
    .map(withoutPrefixLength)
    .filter((address) => !present.includes(address));
  return { known, own: known.filter((address) => !isOfAnother(address, call, () => [], attachments)) };
}

/** Those of prevResult, without prefix length. */
export function addressesOfResult({ prevResult }: Pick<Call, 'prevResult'>): string[] {
  return prevResult?.ips.map(({ address }) => withoutPrefixLength(address)) ?? [];
}

/**
 * Of the addresses that rules are about, those of containers of this network that are not valid any more:
 *
 * - leased in this network's own files to an attachment that is not valid; or
 * - without a lease, in no network namespace of this host, and reached directly through the same link as an address that
 *   this network leases or leased last. (IPAM's GC runs before this plugin's and removes stale leases.)
 *
 * Networks whose addresses host-local does not manage leave no such trace: their rules are removed by DEL, or by GC from what ADD noted.
 */
export function staleAddresses(
  { network, valid }: Pick<Collection, 'network' | 'valid'>,
  candidates: readonly string[],
): string[] {
  if (candidates.length === 0) return [];
  const attachments = new KnownAttachments({ network, thorough: true });
  const unleased: string[] = [];
  const stale: string[] = [];
  for (const address of candidates) {
    const leases = attachments.leasesOfAddress(address);
    if (leases.length === 0) unleased.push(address);
    else if (leases.every((lease) => lease.network === network && !isValid(lease, valid)))
      stale.push(address);
  }
  const unused = unleased.filter((address) => !attachments.mayBeAlive({ address }));
  return [...stale, ...ofNetwork(attachments, unused)];
}

function once<T>(work: () => T): () => T {
  let result: { readonly value: T } | undefined;
  return () => (result ??= { value: work() }).value;
}

/** None if the namespace is gone, the path is something else, or the namespace is another container's. */
function addressesInNamespace({ netns, ifname, network, containerId }: Call): string[] {
  try {
    if (netns === '') return [];
    using rtnetlink = Rtnetlink.openIn(netns);
    const link = linkByName(rtnetlink, ifname);
    if (link === undefined || isPeerOfAnother(link, `${network}/${containerId}/${ifname}`)) return [];
    return addresses(rtnetlink, { index: link.index })
      .filter(({ scope }) => scope === RT_SCOPE_UNIVERSE)
      .map(({ address }) => withoutPrefixLength(address));
  } catch {
    // Unreadable, or deleted meanwhile: the other sources decide.
    return [];
  }
}

/** linux/rtnetlink.h: link-local addresses never get rules. */
const RT_SCOPE_UNIVERSE = 0;
/** The bridge plugin's alias of the host end of a veth pair: `weft:NETWORK/CONTAINER/IFNAME`. */
const ALIAS_PREFIX = 'weft:';

/** Runtimes reuse paths such as /proc/PID/ns/net: the alias of the host end names the container of the interface. */
function isPeerOfAnother(link: LinkInfo, attachment: string): boolean {
  if (link.kind !== 'veth' || link.peerIndex === undefined) return false;
  using host = Rtnetlink.open();
  const peer = linkByIndex(host, link.peerIndex);
  if (peer?.kind !== 'veth' || peer.peerIndex !== link.index) return false;
  return peer.alias?.startsWith(ALIAS_PREFIX) === true && peer.alias !== `${ALIAS_PREFIX}${attachment}`;
}

function leased({ containerId, ifname }: Call, attachments: KnownAttachments): string[] {
  return attachments
    .leases()
    .filter((lease) => lease.containerId === containerId && (lease.ifname ?? ifname) === ifname)
    .map(({ address }) => address);
}

function cachedAddresses({ containerId, ifname }: Call, attachments: KnownAttachments): string[] {
  return attachments
    .cachedResults(containerId)
    .filter((result) => result.ifname === ifname)
    .flatMap((result) => result.addresses);
}

function masqueraded(call: Call): string[] {
  const chain = masqueradeChain(call);
  const sources = driversWithRules().flatMap((driver) =>
    FAMILIES.filter((family) => driver.supports(family))
      .flatMap((family) => driver.read(family, 'nat').jumps('POSTROUTING', chain))
      .flatMap((rule) => (isUnmanaged(rule) || rule.source === undefined ? [] : [rule.source.value])),
  );
  return [...new Set(sources)];
}

/**
 * Whether another container has the address now: by its lease; without any lease, by a network namespace that has the address
 * (leases of other IPAM plugins are unknown).
 */
function isOfAnother(
  address: string,
  call: Call,
  inNamespace: () => readonly string[],
  attachments: KnownAttachments,
): boolean {
  const leases = attachments.leasesOfAddress(address);
  if (leases.length > 0) return leases.every(({ containerId }) => containerId !== call.containerId);
  if (inNamespace().includes(address)) return false;
  const holders = attachments.addressesInUse().byAddress.get(address) ?? [];
  return holders.some((holder) => !isOwnNamespace(holder, call, attachments));
}

function isOwnNamespace(holder: string, { containerId }: Call, attachments: KnownAttachments): boolean {
  if (basename(holder) === containerId) return true;
  const identity = identityOf(holder);
  const paths = attachments.cachedResults(containerId).map((result) => result.netns);
  return identity !== undefined && paths.some((path) => path !== '' && identityOf(path) === identity);
}

function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/** An attachment without interface name counts for every one of its container. */
export function isValid(
  { containerId, ifname }: { readonly containerId: string; readonly ifname: string | undefined },
  valid: Collection['valid'],
): boolean {
  return valid.some((one) => one.containerID === containerId && (ifname ?? one.ifname) === one.ifname);
}

function ofNetwork(attachments: KnownAttachments, unused: readonly string[]): string[] {
  if (unused.length === 0) return [];
  using rtnetlink = Rtnetlink.open();
  const linkTo = (address: string): number | undefined => {
    const route = lookupRoute(rtnetlink, address);
    return route?.gateway === undefined ? route?.link : undefined;
  };
  const links = new Set(
    [...attachments.lastReserved(), ...attachments.leases().map(({ address }) => address)].map(linkTo),
  );
  links.delete(undefined);
  return unused.filter((address) => links.has(linkTo(address)));
}
