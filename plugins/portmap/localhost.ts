import { formatAddress } from '../../shared/net/address.ts';
import { linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import { lookupRoute } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { writeSysctl } from '../../shared/kernel/sysctl.ts';
import type { Forwarding } from './backend.ts';

/**
 * Lets connections to 127.0.0.1 be led to the container: the kernel drops packets with a loopback address on any other link,
 * unless that link allows it. Which link: the one that the host reaches the container through. IPv6 has no such switch.
 */
export function allowLocalhost(forwardings: readonly Forwarding[]): void {
  const wanted = forwardings.filter(({ family, settings }) => family === 'ipv4' && settings.snat);
  if (wanted.length === 0) return;
  using rtnetlink = Rtnetlink.open();
  for (const { container } of wanted) {
    const link = lookupRoute(rtnetlink, formatAddress(container.address))?.link;
    const name = link === undefined ? undefined : linkByIndex(rtnetlink, link)?.name;
    if (name !== undefined) writeSysctl(`net/ipv4/conf/${name}/route_localnet`, 1);
  }
}
