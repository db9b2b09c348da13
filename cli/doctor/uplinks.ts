import type { LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import type { RouteInfo } from '../../shared/kernel/rtnetlink/routes.ts';

export interface RoutingTable {
  links(): readonly LinkInfo[];
  /** Of the main table. */
  routes(): readonly RouteInfo[];
}

/** A path of a default route. */
export interface DefaultRoute {
  readonly device: string;
  readonly index: number;
  readonly mtu: number;
  /** RTPROT_* of linux/rtnetlink.h. */
  readonly protocol: number;
}

/** Each path of a family's default routes. */
export function defaultRoutes(host: RoutingTable, family: 'ipv4' | 'ipv6'): DefaultRoute[] {
  const destination = family === 'ipv4' ? '0.0.0.0/0' : '::/0';
  return host
    .routes()
    .filter((route) => route.destination === destination && route.type === RTN_UNICAST)
    .flatMap(({ hops, link, mtu, protocol }) => {
      const indexes = hops.length > 0 ? hops.map((hop) => hop.link) : link === undefined ? [] : [link];
      return indexes.flatMap((index) => {
        const device = host.links().find((one) => one.index === index);
        if (device === undefined) return [];
        return [{ device: device.name, index, mtu: Math.min(mtu ?? device.mtu, device.mtu), protocol }];
      });
    });
}

const RTN_UNICAST = 1;
