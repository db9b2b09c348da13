import { FlagsNew } from 'netlink/dist/constants.js';
import {
  MessageType,
  type Route,
  type RouteAttrs,
  RouteProtocol,
  RouteScope,
  RouteType,
  RoutingTableClass,
  formatRouteMessage,
} from 'netlink/dist/rt/structs.js';
import { KernelError, isErrno } from '../errno.ts';
import { Attributes, encode } from '../netlink/attributes.ts';
import {
  AF_INET,
  AF_INET6,
  addressText,
  anyAddress,
  bytesOf,
  cidrText,
  familyNumber,
  requireAddress,
  requireCidr,
} from '../netlink/ip.ts';
import type { NetlinkRequest } from '../netlink/message.ts';
import { linkByIndex, type LinkInfo } from './links.ts';
import type { Rtnetlink } from './rtnetlink.ts';
import { type AddressFamily, type IpAddress, formatCidr, networkOf } from '../../net/address.ts';

/** A unicast route (linux/rtnetlink.h). Either a gateway or an outgoing link must be given. */
export interface RouteSpec {
  /** CIDR; `0.0.0.0/0` and `::/0` are the default routes. Host bits are cleared. */
  readonly destination: string;
  readonly gateway?: string;
  /** Index of the outgoing link. */
  readonly link?: number;
  /** Preferred source address. */
  readonly source?: string;
  /** Metric; lower wins. Default 0 (IPv4), 1024 (IPv6). */
  readonly priority?: number;
  /** Default 254, main. */
  readonly table?: number;
  /** 0 global, 253 link, 254 host. Default: link without gateway, else global. */
  readonly scope?: number;
  readonly mtu?: number;
  readonly advmss?: number;
  /** The gateway is reachable on `link` although no subnet there contains it. */
  readonly onLink?: boolean;
}

export interface RouteInfo {
  readonly destination: string;
  readonly family: AddressFamily;
  readonly gateway: string | undefined;
  readonly link: number | undefined;
  readonly source: string | undefined;
  readonly priority: number;
  readonly table: number;
  readonly scope: number;
  /** RTN_*: 1 unicast, 2 local, 3 broadcast, 6 blackhole, 7 unreachable, ... */
  readonly type: number;
  /** RTPROT_*: 2 kernel, 3 boot, 4 static, 9 router advertisement. */
  readonly protocol: number;
  readonly mtu: number | undefined;
  readonly advmss: number | undefined;
  readonly onLink: boolean;
  /** Next hops of a multipath route; `gateway` and `link` are those of the first. */
  readonly hops: readonly { readonly gateway: string | undefined; readonly link: number }[];
}

interface RouteFilter {
  readonly family?: AddressFamily;
  /** Default 254, main. */
  readonly table?: number | 'all';
  readonly link?: number;
}

/** Routes of one table or all, both families unless asked otherwise; none when there is no such table or link. */
export function routes(rtnetlink: Rtnetlink, filter: RouteFilter = {}): RouteInfo[] {
  const { table = RoutingTableClass.MAIN, link } = filter;
  const families = filter.family === undefined ? (['ipv4', 'ipv6'] as const) : [filter.family];
  return families.flatMap((family) =>
    rtnetlink
      .dump(listRoutesRequest(family, filter), ['ENOENT', 'ENODEV'])
      .flatMap(({ body }) => decodeRoute(body) ?? [])
      // The kernel filters since 4.20; without IPv6 it answers for every family that it has.
      .filter((route) => route.family === family && (table === 'all' || route.table === table))
      .filter(
        (route) => link === undefined || route.link === link || route.hops.some((hop) => hop.link === link),
      ),
  );
}

/**
 * The route that the kernel uses for this address: outgoing link, source address, gateway.
 * @returns undefined when there is none (no route, unreachable, prohibited)
 */
export function lookupRoute(rtnetlink: Rtnetlink, address: string): RouteInfo | undefined {
  const [outcome] = rtnetlink.batch([lookupRouteRequest(requireAddress(address))]);
  if (outcome?.error !== undefined) {
    if (isUnroutable(outcome.error)) return undefined;
    throw outcome.error;
  }
  const [answer] = outcome?.messages ?? [];
  const route = answer === undefined ? undefined : decodeRoute(answer.body);
  return route === undefined || route.type >= RouteType.BLACKHOLE ? undefined : route;
}

/** The name of the interface through which the host reaches this address; undefined when there is no route. */
export function interfaceTo(rtnetlink: Rtnetlink, address: string): string | undefined {
  return linkTo(rtnetlink, address)?.name;
}

/** The link through which the host reaches this address; undefined when there is no route. */
export function linkTo(rtnetlink: Rtnetlink, address: string): LinkInfo | undefined {
  const index = lookupRoute(rtnetlink, address)?.link;
  return index === undefined ? undefined : linkByIndex(rtnetlink, index);
}

/** No route, or one of type unreachable, prohibit or blackhole; EINVAL of a blackhole, unlike that of a bad request, has no explanation. */
function isUnroutable(error: KernelError): boolean {
  if (error.code === 'EINVAL') return error.detail === undefined;
  return isErrno(error, 'ENETUNREACH', 'EHOSTUNREACH', 'EACCES');
}

/**
 * Adds a route, like `ip route prepend`: several with the same destination and priority are possible unless the gateway is the same too.
 *
 * Requests for routes begin with struct rtmsg (linux/rtnetlink.h):
 *
 *    0        1         2         3     4       5          6       7      8       12
 *    +--------+---------+---------+-----+-------+----------+-------+------+-------+- - - - - -
 *    | family | dst len | src len | tos | table | protocol | scope | type | flags | attributes
 *    +--------+---------+---------+-----+-------+----------+-------+------+-------+- - - - - -
 *
 *    [1 DST] [7 PREFSRC] [5 GATEWAY] [6 PRIORITY] [15 TABLE, above 255] [4 OIF]
 *    [8 METRICS] [2 RTAX_MTU] [8 RTAX_ADVMSS]
 */
export function prependRouteRequest(route: RouteSpec): NetlinkRequest {
  const { gateway, table = RoutingTableClass.MAIN } = route;
  const { address, prefix } = networkOf(requireCidr(route.destination));
  const data: Route = {
    family: familyNumber(address.family),
    dstLen: prefix,
    table: table > LARGEST_SHORT_TABLE ? 0 : table,
    protocol: RouteProtocol.BOOT,
    type: RouteType.UNICAST,
    // As `ip route`: IPv4 without a gateway has scope link. IPv6 has no scopes.
    scope:
      route.scope ??
      (address.family === 'ipv4' && gateway === undefined ? RouteScope.LINK : RouteScope.UNIVERSE),
    ...(route.onLink === true && { flags: { __unknown: RTNH_F_ONLINK } }),
  };
  const attrs = routeAttributes(route, prefix === 0 ? undefined : address);
  return {
    what: `RTM_NEWROUTE ${formatCidr({ address, prefix })}${gateway === undefined ? '' : ` via ${gateway}`}`,
    type: MessageType.NEWROUTE,
    flags: FlagsNew.CREATE,
    body: encode((out) => formatRouteMessage({ kind: 'route', data, attrs }, out)),
  };
}

function listRoutesRequest(
  family: AddressFamily,
  { table = RoutingTableClass.MAIN, link }: RouteFilter,
): NetlinkRequest {
  const number = table === 'all' ? 0 : table;
  const data: Route = {
    family: familyNumber(family),
    ...(number <= LARGEST_SHORT_TABLE && { table: number }),
  };
  const attrs: RouteAttrs = { table: number, ...(link !== undefined && { oif: link }) };
  return {
    what: 'RTM_GETROUTE (list)',
    type: MessageType.GETROUTE,
    flags: 0,
    body: encode((out) => formatRouteMessage({ kind: 'route', data, attrs }, out)),
  };
}

/** With RTM_F_LOOKUP_TABLE the answer names the table; for IPv6 it always does, and the flag is refused. */
function lookupRouteRequest(address: IpAddress): NetlinkRequest {
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
    answered: true,
  };
}

const LARGEST_SHORT_TABLE = 255;
/** RTNH_F_ONLINK, linux/rtnetlink.h: in rtmsg's flags, of which the package knows only RTM_F_*. */
const RTNH_F_ONLINK = 4;

/** In iproute2's order: the package encodes attributes in the order of the object's keys. */
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

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/**
 * A route from the body of RTM_NEWROUTE (struct rtmsg and RTA_*).
 * @returns undefined for families other than IPv4 and IPv6
 * @throws KernelError EBADMSG
 */
function decodeRoute(body: Buffer): RouteInfo | undefined {
  if (body.length < RTMSG) throw new KernelError('RTM_NEWROUTE', 74, { detail: `${body.length} bytes` });
  const family = body.readUInt8(0);
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  const attributes = new Attributes(body, RTMSG);
  const metrics = attributes.nested(RTA_METRICS);
  const hops = decodeHops(attributes.get(RTA_MULTIPATH));
  const link = attributes.u32(RTA_OIF) ?? hops[0]?.link;
  return {
    destination: cidrText(attributes.get(RTA_DST) ?? anyAddress(family), body.readUInt8(1)),
    family: family === AF_INET ? 'ipv4' : 'ipv6',
    gateway: gatewayOf(attributes) ?? hops[0]?.gateway,
    link,
    source: textOf(attributes.get(RTA_PREFSRC)),
    priority: attributes.u32(RTA_PRIORITY) ?? 0,
    table: attributes.u32(RTA_TABLE) ?? body.readUInt8(4),
    scope: body.readUInt8(6),
    type: body.readUInt8(7),
    protocol: body.readUInt8(5),
    mtu: metrics?.u32(RTAX_MTU),
    advmss: metrics?.u32(RTAX_ADVMSS),
    onLink: (body.readUInt32LE(8) & RTNH_F_ONLINK) !== 0,
    hops,
  };
}

const RTMSG = 12;
const RTNEXTHOP = 8;
/** linux/rtnetlink.h */
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_METRICS = 8;
const RTA_MULTIPATH = 9;
const RTA_TABLE = 15;
const RTA_VIA = 18;
const RTAX_MTU = 2;
const RTAX_ADVMSS = 8;

/** A gateway of the other family is in RTA_VIA: its family in two bytes, then the address. */
function gatewayOf(attributes: Attributes): string | undefined {
  return textOf(attributes.get(RTA_GATEWAY) ?? attributes.get(RTA_VIA)?.subarray(2));
}

/** A list of struct rtnexthop { length u16, flags u8, hops u8, index i32 }, each followed by attributes. */
function decodeHops(bytes: Buffer | undefined): RouteInfo['hops'] {
  const hops: { gateway: string | undefined; link: number }[] = [];
  for (let at = 0; bytes !== undefined && at + RTNEXTHOP <= bytes.length;) {
    const length = bytes.readUInt16LE(at);
    if (length < RTNEXTHOP || at + length > bytes.length) throw new KernelError('RTM_NEWROUTE', 74);
    const attributes = new Attributes(bytes.subarray(at, at + length), RTNEXTHOP);
    hops.push({ gateway: gatewayOf(attributes), link: bytes.readInt32LE(at + 4) });
    at += (length + 3) & ~3;
  }
  return hops;
}

function textOf(address: Buffer | undefined): string | undefined {
  return address === undefined ? undefined : addressText(address);
}
