import { parseCidr, type Cidr } from '../../shared/net/address.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/types.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';

/** Where ports lead: the container's first address of each family. */
export type Target = Readonly<Partial<Record<Family, Cidr>>>;

/** @throws CniError 7 when no plugin before this one said what it made */
export function needPrevResult({ prevResult }: Invocation<unknown>): CniResult {
  if (prevResult !== undefined) return prevResult;
  throw new CniError(CniCode.InvalidNetworkConfig, 'must be called as chained plugin', {
    details: 'put portmap behind the plugin that makes the interface, such as bridge',
  });
}

/**
 * Addresses of other interfaces, and of those on the host, do not count. One that belongs to no known interface does: some
 * plugins leave the index out or have it wrong.
 */
export function targetOf(result: CniResult, ifname: string): Target {
  const own = result.ips.filter(({ interface: index }) => {
    const link = index === undefined ? undefined : result.interfaces[index];
    return link === undefined || (link.name === ifname && (link.sandbox ?? '') !== '');
  });
  const addresses = own.map(({ address }) => parseCidr(address)).filter((cidr) => cidr !== undefined);
  const ipv4 = addresses.find(({ address }) => address.family === 'ipv4');
  const ipv6 = addresses.find(({ address }) => address.family === 'ipv6');
  return { ...(ipv4 === undefined ? {} : { ipv4 }), ...(ipv6 === undefined ? {} : { ipv6 }) };
}
