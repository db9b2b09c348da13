import { FlagsNew } from 'netlink/dist/constants.js';
import {
  formatRouteMessage,
  MessageType,
  RouteProtocol,
  RouteScope,
  RouteType,
  RoutingTableClass,
  type Route,
  type RouteAttrs,
} from 'netlink/dist/rt/structs.js';
import { formatCidr, networkOf, type AddressFamily, type IpAddress } from '../../net/address.ts';
import { encode } from '../netlink/attributes.ts';
import type { NetlinkRequest } from '../netlink/message.ts';
import { bytesOf, familyNumber, requireAddress, requireCidr } from '../netlink/ip.ts';
import type { RouteFilter, RouteSpec } from './route-types.ts';

/**
 * What adds, removes, lists and looks up routes (linux/rtnetlink.h). All begin with struct rtmsg:
 *
 *    0        1         2         3     4       5          6       7      8       12
 *    +--------+---------+---------+-----+-------+----------+-------+------+-------+- - - - - -
 *    | family | dst len | src len | tos | table | protocol | scope | type | flags | attributes
 *    +--------+---------+---------+-----+-------+----------+-------+------+-------+- - - - - -
 *
 *    [1 DST] [7 PREFSRC] [5 GATEWAY] [6 PRIORITY] [15 TABLE, above 255] [4 OIF]
 *    [8 METRICS] [2 RTAX_MTU] [8 RTAX_ADVMSS]
 */
export function addRouteRequest(route: RouteSpec): NetlinkRequest {
  return changeRequest('RTM_NEWROUTE', MessageType.NEWROUTE, FlagsNew.CREATE | FlagsNew.EXCL, route);
}

/** Like `ip route prepend`: beside those with the same destination and priority; only one that agrees in the gateway as well is refused. */
export function prependRouteRequest(route: RouteSpec): NetlinkRequest {
  return changeRequest('RTM_NEWROUTE', MessageType.NEWROUTE, FlagsNew.CREATE, route);
}

export function replaceRouteRequest(route: RouteSpec): NetlinkRequest {
  return changeRequest('RTM_NEWROUTE', MessageType.NEWROUTE, FlagsNew.CREATE | FlagsNew.REPLACE, route);
}

export function deleteRouteRequest(route: RouteSpec): NetlinkRequest {
  return changeRequest('RTM_DELROUTE', MessageType.DELROUTE, 0, route);
}

export function listRoutesRequest(
  family: AddressFamily,
  { table = RoutingTableClass.MAIN, link }: RouteFilter,
): NetlinkRequest {
  const data: Route = { family: familyNumber(family), ...(table <= LARGEST_SHORT_TABLE && { table }) };
  const attrs: RouteAttrs = { table, ...(link !== undefined && { oif: link }) };
  return {
    what: 'RTM_GETROUTE (list)',
    type: MessageType.GETROUTE,
    flags: 0,
    body: encode((out) => formatRouteMessage({ kind: 'route', data, attrs }, out)),
  };
}

/** flags RTM_F_LOOKUP_TABLE: the answer names the table that decided; IPv6's does anyway, and refuses the flag. */
export function lookupRouteRequest(address: IpAddress): NetlinkRequest {
  const dst = bytesOf(address);
  const data: Route = {
    family: familyNumber(address.family),
    dstLen: dst.length * 8,
    ...(address.family === 'ipv4' && { flags: { lookupTable: true } }),
  };
  return {
    what: 'RTM_GETROUTE',
    type: MessageType.GETROUTE,
    flags: 0,
    body: encode((out) => formatRouteMessage({ kind: 'route', data, attrs: { dst } }, out)),
  };
}

const LARGEST_SHORT_TABLE = 255;
/** RTNH_F_ONLINK, linux/rtnetlink.h; shares the flags word of rtmsg, where the package only knows RTM_F_*. */
const RTNH_F_ONLINK = 4;

function changeRequest(verb: string, type: number, flags: number, route: RouteSpec): NetlinkRequest {
  const destination = networkOf(requireCidr(route.destination));
  const via = route.gateway === undefined ? '' : ` via ${route.gateway}`;
  const data: Route = {
    family: familyNumber(destination.address.family),
    dstLen: destination.prefix,
    table: tableOf(route),
    ...(type === MessageType.NEWROUTE && { protocol: RouteProtocol.BOOT, type: RouteType.UNICAST }),
    scope: scopeOf(route, destination.address.family, type),
    ...(route.onLink === true && { flags: { __unknown: RTNH_F_ONLINK } }),
  };
  const attrs = routeAttributes(route, destination.prefix === 0 ? undefined : destination.address);
  return {
    what: `${verb} ${formatCidr(destination)}${via}`,
    type,
    flags,
    body: encode((out) => formatRouteMessage({ kind: 'route', data, attrs }, out)),
  };
}

/** In iproute2's order: the package writes attributes in the order of the object's keys. */
function routeAttributes(route: RouteSpec, destination: IpAddress | undefined): RouteAttrs {
  const { source, gateway, priority, link, table, mtu, advmss } = route;
  return {
    ...(destination !== undefined && { dst: bytesOf(destination) }),
    ...(source !== undefined && { prefsrc: bytesOf(requireAddress(source)) }),
    ...(gateway !== undefined && { gateway: bytesOf(requireAddress(gateway)) }),
    ...(priority !== undefined && { priority }),
    ...(table !== undefined && table > LARGEST_SHORT_TABLE && { table }),
    ...(link !== undefined && { oif: link }),
    ...((mtu !== undefined || advmss !== undefined) && {
      metrics: {
        ...(mtu !== undefined && { mtu: uint32(mtu) }),
        ...(advmss !== undefined && { advmss: uint32(advmss) }),
      },
    }),
  };
}

function tableOf({ table = RoutingTableClass.MAIN }: RouteSpec): number {
  return table > LARGEST_SHORT_TABLE ? 0 : table;
}

/** As `ip route`: IPv4 without a gateway is on the link; when deleting, an unnamed scope matches any. IPv6 has no scopes. */
function scopeOf(route: RouteSpec, family: AddressFamily, type: number): number {
  if (route.scope !== undefined) return route.scope;
  if (family === 'ipv6') return RouteScope.UNIVERSE;
  if (type === MessageType.DELROUTE) return RouteScope.NOWHERE;
  return route.gateway === undefined ? RouteScope.LINK : RouteScope.UNIVERSE;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
