import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { NodeConfig } from '../../shared/config/node-config.ts';
import { configureIpam } from '../../shared/ipam/config.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByIndex, linkByName } from '../../shared/kernel/rtnetlink/links.ts';
import { routes, type RouteInfo } from '../../shared/kernel/rtnetlink/routes.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import {
  containsAddress,
  formatCidr,
  networkOf,
  parseAddress,
  parseCidr,
  type Cidr,
} from '../../shared/net/address.ts';
import { vlanGatewayName, type BridgeConfig } from './config.ts';
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

/**
 * Rejects a network whose gateway address would take the route to the host's own gateway or uplink: the bridge gets an address of the
 * allocation subnet, and the host would lose its connection. For ranges of host-local, before anything changes.
 * @throws CniError 7
 */
export function rejectOverlappingRanges(host: Rtnetlink, config: BridgeConfig): void {
  if (config.ipamType !== 'host-local') return;
  const ipam = configureIpam(config.raw);
  if (!('settings' in ipam)) return;
  const link = linkByName(host, config.bridge);
  const present = link === undefined ? [] : addresses(host, { index: link.index });
  // A network that works already is not judged again: its first container was.
  const isNew = (subnet: Cidr): boolean =>
    !present.some(({ address }) => isWithin(subnet, parseCidr(address)?.address));
  const subnets = ipam.settings.rangeSets.flat().map(({ subnet }) => networkOf(subnet));
  rejectOverlap(host, config, subnets.filter(isNew));
}

/** The same for gateway addresses that another IPAM plugin returned, with prefix length. */
export function rejectOverlappingGateways(
  host: Rtnetlink,
  config: BridgeConfig,
  gateways: readonly string[],
): void {
  rejectOverlap(
    host,
    config,
    gateways.flatMap((gateway) => {
      const cidr = parseCidr(gateway);
      return cidr === undefined ? [] : [networkOf(cidr)];
    }),
  );
}

function rejectOverlap(host: Rtnetlink, config: BridgeConfig, subnets: readonly Cidr[]): void {
  if (!config.isGateway || config.allowUplinkOverlap || subnets.length === 0) return;
  const names = [config.bridge, ...(config.vlan === 0 ? [] : [vlanGatewayName(config.bridge, config.vlan)])];
  const own = names.flatMap((name) => linkByName(host, name)?.index ?? []);
  const uplinks = new Map<number, string>();
  for (const route of routes(host).filter(({ type }) => type === RTN_UNICAST)) {
    for (const { link, gateway } of pathsOf(route)) {
      if (own.includes(link) || (gateway === undefined && !isDefaultRoute(route.destination))) continue;
      const text = describe(host, route, link, gateway);
      const overlap = subnets.find((subnet) => isWithin(subnet, parseAddress(gateway ?? '')));
      if (overlap !== undefined)
        throw overlapError(overlap, `${gateway ?? ''}, the gateway of the host's route`, text);
      if (!uplinks.has(link)) uplinks.set(link, text);
    }
  }
  for (const [link, route] of uplinks) {
    for (const { address } of addresses(host, { index: link })) {
      const overlap = subnets.find((subnet) => isWithin(subnet, parseCidr(address)?.address));
      if (overlap !== undefined)
        throw overlapError(overlap, `${address}, the host's address on the uplink of route`, route);
    }
  }
}

function overlapError(subnet: Cidr, what: string, route: string): CniError {
  return new CniError(
    CniCode.InvalidNetworkConfig,
    `allocation subnet ${formatCidr(subnet)} contains ${what} "${route}"`,
    {
      details:
        'the host would lose this connection; choose another subnet in "ipam", or set "allowUplinkOverlap": true',
    },
  );
}

/** As `ip route` prints it. */
function describe(host: Rtnetlink, route: RouteInfo, link: number, gateway: string | undefined): string {
  const destination = isDefaultRoute(route.destination) ? 'default' : route.destination;
  const device = linkByIndex(host, link)?.name ?? `index ${link}`;
  return `${destination}${gateway === undefined ? '' : ` via ${gateway}`} dev ${device}`;
}

function isWithin(subnet: Cidr, address: Cidr['address'] | undefined): boolean {
  return (
    address !== undefined && address.family === subnet.address.family && containsAddress(subnet, address)
  );
}

/** The smallest of all paths of the default routes, IPv4's first; undefined on a host without a default route. */
function uplinkMtu(host: Rtnetlink): number | undefined {
  for (const family of ['ipv4', 'ipv6'] as const) {
    const mtus = routes(host, { family })
      .filter(({ destination, type }) => isDefaultRoute(destination) && type === RTN_UNICAST)
      .flatMap((route) => pathsOf(route).flatMap(({ link }) => mtuOf(host, route, link) ?? []));
    if (mtus.length > 0) return Math.min(...mtus);
  }
  return undefined;
}

/** linux/rtnetlink.h */
const RTN_UNICAST = 1;

/** A route with several next hops has several paths. */
function pathsOf(route: RouteInfo): { readonly link: number; readonly gateway: string | undefined }[] {
  if (route.hops.length > 0) return [...route.hops];
  return route.link === undefined ? [] : [{ link: route.link, gateway: route.gateway }];
}

/** A route may have a smaller MTU than its device, for example towards a tunnel. */
function mtuOf(host: Rtnetlink, route: RouteInfo, link: number): number | undefined {
  const device = linkByIndex(host, link)?.mtu;
  return route.mtu === undefined || device === undefined ? device : Math.min(route.mtu, device);
}
