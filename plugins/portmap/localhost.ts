import { interfaceTo } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { formatAddress, formatCidr, networkOf } from '../../shared/net/address.ts';
import type { PortForwarding } from './backend.ts';

/**
 * The kernel parameters that must be 1 so that connections from 127.0.0.1 are forwarded to the containers: without route_localnet the kernel
 * drops loopback addresses on the interface through which the host reaches a container. IPv6 has no such switch.
 */
export function localhostSysctls(forwardings: readonly PortForwarding[]): string[] {
  const wanted = forwardings.filter(({ family, settings }) => family === 'ipv4' && settings.snat);
  if (wanted.length === 0) return [];
  using rtnetlink = Rtnetlink.open();
  const bySubnet = new Map(wanted.map(({ container }) => [formatCidr(networkOf(container)), container]));
  const names = [...bySubnet.values()].map(({ address }) => interfaceTo(rtnetlink, formatAddress(address)));
  return [...new Set(names)].flatMap((name) =>
    name === undefined ? [] : [`net/ipv4/conf/${name}/route_localnet`],
  );
}
