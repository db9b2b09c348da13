import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { parseCidr, type Cidr } from '../../shared/net/address.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { PortForwarding } from './backend.ts';
import type { PortmapSettings } from './config.ts';

export const FAMILIES: readonly Family[] = ['ipv4', 'ipv6'];

/** The desired state: one entry for each family in which the container has an address and a mapping applies. */
export function forwardingsOf(
  attachment: Pick<Invocation<unknown>, 'network' | 'containerId' | 'ifname'>,
  settings: PortmapSettings,
  result: CniResult,
): PortForwarding[] {
  const { network, containerId, ifname } = attachment;
  const { mappings = [] } = settings;
  if (mappings.length === 0) return [];
  const addresses = containerAddresses(result, ifname);
  return FAMILIES.flatMap((family) => {
    const container = addresses[family];
    const own = mappings.filter(({ families }) => families.includes(family));
    if (container === undefined || own.length === 0) return [];
    return [{ network, containerId, family, settings, container, mappings: own }];
  });
}

/** @throws CniError 7 when the plugin is the first of its list */
export function requirePrevResult({ prevResult }: Invocation<unknown>): CniResult {
  if (prevResult !== undefined) return prevResult;
  throw new CniError(CniCode.InvalidNetworkConfig, 'must be called as chained plugin', {
    details: 'put portmap after the plugin that creates the interface, such as bridge',
  });
}

/**
 * The first address of each family on the container's interface. Addresses of other interfaces, or of interfaces on the host, do not
 * count. An address without a valid interface index does: some plugins omit the index or get it wrong.
 */
function containerAddresses(result: CniResult, ifname: string): Readonly<Partial<Record<Family, Cidr>>> {
  const own = result.ips.filter(({ interface: index }) => {
    const link = index === undefined ? undefined : result.interfaces[index];
    return link === undefined || (link.name === ifname && (link.sandbox ?? '') !== '');
  });
  const addresses = own.map(({ address }) => parseCidr(address)).filter((cidr) => cidr !== undefined);
  const ipv4 = addresses.find(({ address }) => address.family === 'ipv4');
  const ipv6 = addresses.find(({ address }) => address.family === 'ipv6');
  return { ...(ipv4 === undefined ? {} : { ipv4 }), ...(ipv6 === undefined ? {} : { ipv6 }) };
}
