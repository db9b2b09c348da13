import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { waitUntil } from '../../shared/kernel/deadline.ts';
import { inNamespace, type NetworkNamespace } from '../../shared/kernel/namespace.ts';
import { addAddressRequest, addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { setLinkRequest } from '../../shared/kernel/rtnetlink/links.ts';
import { prependRouteRequest, type RouteSpec } from '../../shared/kernel/rtnetlink/routes.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { step } from './explain.ts';
import type { End } from './pair.ts';
import type { Layer3, PlannedRoute } from './plan.ts';
import { prepareContainer } from './sysctls.ts';

export interface ContainerSide {
  readonly namespace: NetworkNamespace;
  readonly inside: Rtnetlink;
  readonly end: End;
}

/**
 * Addresses, up, routes, in one write. IPv6 addresses are usable at once: nobody else can have an address that IPAM gave,
 * and duplicate address detection would take a second or two. With `dad` it is left on, and waited for.
 */
export function configureContainer(side: ContainerSide, layer3: Layer3, dad: boolean): void {
  const { namespace, inside, end } = side;
  const ipv6 = layer3.families.includes('ipv6');
  if (ipv6) requireIpv6Mtu(end);
  inNamespace(namespace, () => prepareContainer({ ifname: end.name, ipv6, dad }));
  step(`configure ${end.name}`, () =>
    inside.batchOrThrow([
      ...layer3.addresses.map((address) =>
        addAddressRequest({ index: end.index, address, noDad: !dad, broadcast: 'computed' }),
      ),
      setLinkRequest(end.index, { up: true }),
      // IPAM may name several gateways for a destination, or the container's own subnet, which has a route by now.
      ...layer3.routes.map((route) => prependRouteRequest(routeSpec(route, end.index))),
    ]),
  );
  if (ipv6 && dad) waitForDad(inside, end);
}

/** A layer-2 container: its interface is up and has no address but the link-local one. */
export function bringUp({ namespace, inside, end }: ContainerSide, dad: boolean): void {
  inNamespace(namespace, () => prepareContainer({ ifname: end.name, ipv6: false, dad }));
  step(`bring ${end.name} up`, () => inside.request(setLinkRequest(end.index, { up: true })));
}

/** Addresses that the container has on other interfaces than this one; what of them is on the same network keeps its rules. */
export function otherAddresses(inside: Rtnetlink, index: number | undefined): string[] {
  return addresses(inside)
    .filter((one) => one.index !== index && one.index !== LOOPBACK)
    .map(({ address }) => address);
}

/** lo is the first link of every network namespace. */
const LOOPBACK = 1;
/** RFC 8200, 5; below it the kernel switches IPv6 off on the link without a word. */
const IPV6_MIN_MTU = 1280;
/** As long as the reference waits. */
const DAD_MS = 5000;

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

function requireIpv6Mtu({ name, mtu }: End): void {
  if (mtu >= IPV6_MIN_MTU) return;
  throw new CniError(
    CniCode.InvalidNetworkConfig,
    `mtu ${mtu} is too small for the IPv6 address of ${name}: IPv6 needs at least ${IPV6_MIN_MTU}`,
  );
}

function waitForDad(inside: Rtnetlink, { index, name }: End): void {
  const unfinished = (): boolean => {
    const mine = addresses(inside, { index, family: 'ipv6' });
    const failed = mine.find(({ dadFailed }) => dadFailed);
    if (failed !== undefined) {
      throw new CniError(
        CniCode.Internal,
        `the IPv6 address ${failed.address} of ${name} is in use by another host of the network (duplicate address detection)`,
      );
    }
    return mine.some(({ tentative }) => tentative);
  };
  if (!waitUntil(DAD_MS, () => !unfinished())) {
    throw new CniError(
      CniCode.TryAgainLater,
      `duplicate address detection on ${name} was not over after ${DAD_MS} ms`,
      { details: 'without "enabledad" it is not waited for' },
    );
  }
}
