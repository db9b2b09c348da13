import type { NodeConfig } from '../../shared/config/node-config.ts';
import { linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import { routes, type RouteInfo } from '../../shared/kernel/rtnetlink/routes.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import type { BridgeConfig } from './config.ts';
import { isDefaultRoute } from './plan.ts';

/** @returns bytes, as the network configures it, else the node; undefined: the kernel's default (1500) */
export function chosenMtu(
  host: Rtnetlink,
  config: Pick<BridgeConfig, 'mtu'>,
  node: Pick<NodeConfig, 'mtu'>,
): number | undefined {
  const wanted = config.mtu ?? node.mtu;
  return wanted === 'auto' ? uplinkMtu(host) : wanted;
}

/** Of the device of the default route, IPv4's first; undefined on a host without a default route. */
function uplinkMtu(host: Rtnetlink): number | undefined {
  for (const family of ['ipv4', 'ipv6'] as const) {
    const [best] = routes(host, { family })
      .filter(
        (route) =>
          isDefaultRoute(route.destination) && route.link !== undefined && route.type === RTN_UNICAST,
      )
      .sort((one, other) => one.priority - other.priority);
    if (best !== undefined) return mtuOf(host, best);
  }
  return undefined;
}

/** linux/rtnetlink.h */
const RTN_UNICAST = 1;

/** A route may have a smaller MTU than its device, for example towards a tunnel. */
function mtuOf(host: Rtnetlink, route: RouteInfo): number | undefined {
  const device = linkByIndex(host, route.link ?? 0)?.mtu;
  return route.mtu === undefined || device === undefined ? device : Math.min(route.mtu, device);
}
