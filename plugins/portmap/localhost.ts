import { linkTo } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { setSysctl } from '../../shared/kernel/sysctl.ts';
import { formatAddress, formatCidr, networkOf } from '../../shared/net/address.ts';
import type { PortForwarding } from './backend.ts';

/** Sets {@link missingLocalhostSysctls}. */
export function allowLocalhost(forwardings: readonly PortForwarding[]): void {
  for (const path of missingLocalhostSysctls(forwardings)) setSysctl(path, 1);
}

/**
 * The kernel parameters that have to become 1 so that connections from 127.0.0.1 are forwarded to the containers: without route_localnet the
 * kernel drops loopback addresses on the interface through which the host reaches a container. IPv6 has no such switch.
 */
export function missingLocalhostSysctls(forwardings: readonly PortForwarding[]): string[] {
  const wanted = forwardings.filter(({ family, settings }) => family === 'ipv4' && settings.snat);
  if (wanted.length === 0) return [];
  using rtnetlink = Rtnetlink.open();
  const bySubnet = new Map(wanted.map(({ container }) => [formatCidr(networkOf(container)), container]));
  const paths = [...bySubnet.values()].flatMap(({ address }) => {
    const link = linkTo(rtnetlink, formatAddress(address));
    return link === undefined || link.routeLocalnet ? [] : [`net/ipv4/conf/${link.name}/route_localnet`];
  });
  return [...new Set(paths)];
}
