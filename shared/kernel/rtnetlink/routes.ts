import { RouteType, RoutingTableClass } from 'netlink/dist/rt/structs.js';
import { isErrno, type KernelError } from '../errno.ts';
import { requireAddress } from '../netlink/ip.ts';
import { decodeRoute } from './route-decode.ts';
import {
  addRouteRequest,
  deleteRouteRequest,
  listRoutesRequest,
  lookupRouteRequest,
  prependRouteRequest,
  replaceRouteRequest,
} from './route-requests.ts';
import type { RouteFilter, RouteInfo, RouteSpec } from './route-types.ts';
import type { Rtnetlink } from './rtnetlink.ts';

export type * from './route-types.ts';
export { addRouteRequest, deleteRouteRequest, prependRouteRequest, replaceRouteRequest };

/** Routes of one table, both families unless asked otherwise; none when there is no such table or link. */
export function routes(rtnetlink: Rtnetlink, filter: RouteFilter = {}): RouteInfo[] {
  const { table = RoutingTableClass.MAIN, link } = filter;
  const families = filter.family === undefined ? (['ipv4', 'ipv6'] as const) : [filter.family];
  return families.flatMap((family) =>
    rtnetlink
      .dump(listRoutesRequest(family, filter), ['ENOENT', 'ENODEV'])
      .flatMap(({ body }) => decodeRoute(body) ?? [])
      // Filtered by the kernel since 4.20; a kernel without IPv6 answers for every family that it has.
      .filter((route) => route.family === family && route.table === table)
      .filter(
        (route) => link === undefined || route.link === link || route.hops.some((hop) => hop.link === link),
      ),
  );
}

/** @throws KernelError EEXIST when there is one with the same destination and priority, whatever its gateway */
export function addRoute(rtnetlink: Rtnetlink, route: RouteSpec): void {
  rtnetlink.request(addRouteRequest(route));
}

/** Adds, or takes the place of the one with the same destination and priority. */
export function replaceRoute(rtnetlink: Rtnetlink, route: RouteSpec): void {
  rtnetlink.request(replaceRouteRequest(route));
}

/** @returns false when there was none */
export function deleteRoute(rtnetlink: Rtnetlink, route: RouteSpec): boolean {
  return rtnetlink.requestUnless(NO_SUCH_ROUTE, deleteRouteRequest(route)) !== undefined;
}

/**
 * How the kernel would send to this address: the outgoing link, the source address it would take, the gateway.
 * @returns undefined when it would not (no route, unreachable, prohibited)
 */
export function lookupRoute(rtnetlink: Rtnetlink, address: string): RouteInfo | undefined {
  const [outcome] = rtnetlink.batch([lookupRouteRequest(requireAddress(address))]);
  if (outcome?.error !== undefined) {
    if (isNoWay(outcome.error)) return undefined;
    throw outcome.error;
  }
  const [answer] = outcome?.messages ?? [];
  const route = answer === undefined ? undefined : decodeRoute(answer.body);
  return route === undefined || route.type >= RouteType.BLACKHOLE ? undefined : route;
}

/** ENOENT: an IPv6 default route, in whose place the kernel keeps an entry of its own. */
const NO_SUCH_ROUTE = ['ESRCH', 'ENOENT', 'ENODEV'];

/** No route, or a route of type unreachable, prohibit, or blackhole: its EINVAL, unlike a bad request's, has no explanation. */
function isNoWay(error: KernelError): boolean {
  if (error.code === 'EINVAL') return error.detail === undefined;
  return isErrno(error, 'ENETUNREACH', 'EHOSTUNREACH', 'EACCES');
}
