import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { step } from '../../shared/cni/undo.ts';
import { waitUntil } from '../../shared/kernel/deadline.ts';
import { inNamespace } from '../../shared/kernel/namespace.ts';
import { addAddressRequest, addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { setLinkRequest } from '../../shared/kernel/rtnetlink/links.ts';
import { prependRouteRequest, type RouteSpec } from '../../shared/kernel/rtnetlink/routes.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { writeSysctl } from '../../shared/kernel/sysctl.ts';
import type { Context } from './context.ts';
import type { Layer3, PlannedRoute } from './plan.ts';
import type { VethEnd } from './veth.ts';

/**
 * Sets addresses, brings the container end up and adds routes, in one write. IPv6 addresses are usable at once: IPAM gives each to one
 * container only, and duplicate address detection would take one to two seconds. With `enabledad` it stays on, and ADD waits for it.
 */
export function configureContainer({ call, namespace, inside }: Context, end: VethEnd, layer3: Layer3): void {
  const { enabledad } = call.config;
  const ipv6 = layer3.families.includes('ipv6');
  if (ipv6) requireIpv6Mtu(end);
  inNamespace(namespace, () => setSysctls(end.name, ipv6, enabledad));
  step(`configure ${end.name}`, () =>
    inside.batchOrThrow([
      ...layer3.addresses.map((address) =>
        addAddressRequest({ index: end.index, address, noDad: !enabledad, broadcast: 'computed' }),
      ),
      setLinkRequest(end.index, UP),
      // IPAM may return several gateways for one destination, or the container's own subnet, which has a route by now.
      ...layer3.routes.map((route) => prependRouteRequest(routeSpec(route, end.index))),
    ]),
  );
  if (ipv6 && enabledad) waitForDad(inside, end);
}

/** For a layer-2 network: the container end is up and has no address but the link-local one. */
export function bringUp({ call, namespace, inside }: Context, end: VethEnd): void {
  inNamespace(namespace, () => setSysctls(end.name, false, call.config.enabledad));
  step(`bring ${end.name} up`, () => inside.request(setLinkRequest(end.index, UP)));
}

/** Addresses that the container has on its other interfaces; those on the same network keep their masquerading rules. */
export function otherAddresses(inside: Rtnetlink, index: number | undefined): string[] {
  return addresses(inside)
    .filter((one) => one.index !== index && one.index !== LOOPBACK)
    .map(({ address }) => address);
}

/** `announce` needs arp_notify. */
const UP = { up: true, arpNotify: true } as const;
/** lo is the first link of every network namespace. */
const LOOPBACK = 1;
/** RFC 8200, 5; the kernel switches IPv6 off on a link with a smaller MTU, without an error. */
const IPV6_MIN_MTU = 1280;
/** As long as the reference waits. */
const DAD_TIMEOUT_MS = 5000;

/**
 * Runs inside the container's namespace, before its interface is up. With IPv6 addresses each IPv6 setting is required. Without, IPv6 may
 * be missing or read-only, and only the link-local address would need them.
 * @param ipv6 whether the interface gets IPv6 addresses
 * @param dad whether duplicate address detection stays on
 */
function setSysctls(ifname: string, ipv6: boolean, dad: boolean): void {
  const v6 = `net/ipv6/conf/${ifname}`;
  const required = ipv6 ? strict : optional;
  if (ipv6) {
    for (const name of ['lo', ifname]) {
      required(() => writeSysctl(`net/ipv6/conf/${name}/disable_ipv6`, 0));
      required(() => writeSysctl(`net/ipv6/conf/${name}/keep_addr_on_down`, 1));
    }
  }
  required(() => writeSysctl(`${v6}/accept_dad`, dad ? 1 : 0));
  if (dad) required(() => writeSysctl(`${v6}/enhanced_dad`, 1));
  // A link-local address is derived from the MAC, so its neighbours never know it under another MAC: it needs no announcement, which
  // would reach every port of the bridge.
  if (ipv6) optional(() => writeSysctl(`${v6}/ndisc_notify`, 1));
}

function strict(write: () => unknown): void {
  step('prepare the container for IPv6', write);
}

/** An optional setting must not fail ADD where /proc/sys is read-only or the kernel has no IPv6. */
function optional(write: () => unknown): void {
  try {
    write();
  } catch {
    // The setting keeps its value.
  }
}

function routeSpec({ destination, gateway, route }: PlannedRoute, link: number): RouteSpec {
  const { mtu, advmss, priority, table, scope } = route;
  return {
    destination,
    link,
    ...(gateway === undefined ? {} : { gateway }),
    ...(mtu ? { mtu } : {}),
    ...(advmss ? { advmss } : {}),
    ...(priority ? { priority } : {}),
    ...(table === undefined ? {} : { table }),
    ...(scope === undefined ? {} : { scope }),
  };
}

function requireIpv6Mtu({ name, mtu }: VethEnd): void {
  if (mtu >= IPV6_MIN_MTU) return;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `mtu ${mtu} is too small for the IPv6 address of ${name}: IPv6 needs at least ${IPV6_MIN_MTU}`,
  );
}

function waitForDad(inside: Rtnetlink, { index, name }: VethEnd): void {
  const isFinished = (): boolean => {
    const present = addresses(inside, { index, family: 'ipv6' });
    const failed = present.find(({ dadFailed }) => dadFailed);
    if (failed !== undefined) {
      throw new CniError(
        CniCode.Internal,
        `the IPv6 address ${failed.address} of ${name} is in use by another host of the network (duplicate address detection)`,
      );
    }
    return !present.some(({ tentative }) => tentative);
  };
  if (waitUntil(DAD_TIMEOUT_MS, isFinished)) return;
  throw new CniError(
    CniCode.TryAgainLater,
    `duplicate address detection on ${name} did not finish within ${DAD_TIMEOUT_MS} ms`,
    { details: 'without "enabledad" ADD does not wait for it' },
  );
}
