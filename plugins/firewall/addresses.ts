import type { Invocation } from '../../shared/cni/plugin.ts';
import { KnownAttachments, type Lease } from '../../shared/attachments/attachments.ts';
import { isNetworkNamespace } from '../../shared/kernel/namespace.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByName } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { isUnmanaged } from '../../shared/packetfilter/compare.ts';
import { masqueradeChain } from '../../shared/packetfilter/names.ts';
import type { PacketFilterDriver } from '../../shared/packetfilter/ruleset.ts';

type Call = Invocation<unknown>;
type Source = (call: Call, driver: PacketFilterDriver, known: KnownAttachments) => string[];

/**
 * The addresses whose rules a DEL is to take away. The rules name nothing but an address (a comment would make them another rule to
 * the reference's DEL), so without a prevResult the address is looked for wherever this host still has it: DEL goes through a
 * list backwards, so bridge and its IPAM have not taken theirs away yet. In this order, until something is found:
 *
 * 1. prevResult;
 * 2. the interface in the container's namespace, and the leases of this very interface in host-local's files;
 * 3. what the runtime kept of the ADD;
 * 4. the masquerading of this container, whose rules do carry its name.
 *
 * An address that is leased to another container by now is left out: its rules are that container's.
 */
export function addressesOf(call: Call, driver: PacketFilterDriver): string[] {
  const { network, containerId } = call;
  const known = new KnownAttachments({ network, containerId });
  const found = SOURCES.map((source) => () => source(call, driver, known)).reduce<string[]>(
    (before, look) => (before.length > 0 ? before : look()),
    [],
  );
  return found
    .map(withoutPrefix)
    .filter((address) => !isLeasedToAnother(known.leasesOfAddress(address), containerId));
}

const SOURCES: readonly Source[] = [
  ({ prevResult }) => prevResult?.ips.map(({ address }) => address) ?? [],
  (call, _driver, known) => [...inNamespace(call), ...leased(call, known)],
  (call, _driver, known) => cached(call, known),
  masqueraded,
];

function inNamespace({ netns, ifname }: Call): string[] {
  if (netns === '' || !isNetworkNamespace(netns)) return [];
  using rtnetlink = Rtnetlink.openIn(netns);
  const link = linkByName(rtnetlink, ifname);
  if (link === undefined) return [];
  return addresses(rtnetlink, { index: link.index })
    .filter(({ scope }) => scope === GLOBAL)
    .map(({ address }) => address);
}

/** RT_SCOPE_UNIVERSE of linux/rtnetlink.h: link-local addresses never get rules. */
const GLOBAL = 0;

function leased({ containerId, ifname }: Call, known: KnownAttachments): string[] {
  return known
    .leases()
    .filter((lease) => lease.containerId === containerId && (lease.ifname ?? ifname) === ifname)
    .map(({ address }) => address);
}

function cached({ containerId, ifname }: Call, known: KnownAttachments): string[] {
  return known
    .cachedResults(containerId)
    .filter((result) => result.ifname === ifname)
    .flatMap((result) => result.addresses);
}

function masqueraded(call: Call, driver: PacketFilterDriver): string[] {
  const chain = masqueradeChain(call);
  return (['ipv4', 'ipv6'] as const)
    .filter((family) => driver.supports(family))
    .flatMap((family) => driver.read(family, 'nat').jumps('POSTROUTING', chain))
    .flatMap((rule) => (isUnmanaged(rule) || rule.source === undefined ? [] : [rule.source.value]));
}

function isLeasedToAnother(leases: readonly Lease[], containerId: string): boolean {
  return leases.length > 0 && leases.every((lease) => lease.containerId !== containerId);
}

function withoutPrefix(address: string): string {
  return address.replace(/\/\d+$/, '');
}
