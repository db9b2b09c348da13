import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { UndoStack } from '../../shared/cni/undo.ts';
import { isErrno } from '../../shared/kernel/libc.ts';
import { addAddress, addresses, deleteAddress } from '../../shared/kernel/rtnetlink/addresses.ts';
import { routes } from '../../shared/kernel/rtnetlink/routes.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import { hasOtherContainers } from './bridge-link.ts';
import { step } from './explain.ts';
import { conflicting, isDefaultRoute } from './plan.ts';
import { keepTakingRouterAdvertisements } from './sysctls.ts';

/** What is to happen to the addresses of the link that is the containers' gateway. */
export interface GatewayPlan {
  readonly remove: readonly string[];
  readonly add: readonly string[];
}

/**
 * Reads the addresses of the gateway's link and compares; changes nothing.
 * @param force take away an address that is in the way, instead of refusing
 * @throws CniError when one is in the way: any other IPv4 address, an IPv6 one of an overlapping prefix
 */
export function planGateway(
  host: Rtnetlink,
  link: { readonly index: number; readonly name: string },
  wanted: readonly string[],
  force: boolean,
): GatewayPlan {
  const present = addresses(host, { index: link.index }).map(({ address }) => address);
  const add = wanted.filter((address) => !present.includes(address));
  const inTheWay = add.flatMap((address) =>
    conflicting(address, present, wanted).map((other) => ({ address, other })),
  );
  const [first] = inTheWay;
  if (first !== undefined && !force) {
    throw new CniError(
      CniCode.InvalidNetworkConfig,
      `${JSON.stringify(link.name)} already has an IP address different from ${first.address}`,
      { details: `it has ${first.other}; remove it, or let "forceAddress" replace it` },
    );
  }
  return { add, remove: [...new Set(inTheWay.map(({ other }) => other))] };
}

/**
 * Carries the plan out. The address is shared by all containers: it is taken back only while no other one is there.
 * @param own indexes of the ports that this ADD made
 */
export function applyGateway(
  host: Rtnetlink,
  link: { readonly index: number; readonly name: string },
  plan: GatewayPlan,
  options: { readonly dad: boolean; readonly bridge: number; readonly own: readonly number[] },
  undo: UndoStack,
): void {
  const { index, name } = link;
  for (const address of plan.remove) {
    step(`remove ${address} from ${name}`, () => deleteAddress(host, { index, address }));
    undo.push(`removal of ${address} from ${name}`, () => put(host, index, address, options.dad));
  }
  for (const address of plan.add) {
    const added = step(`put the gateway address ${address} on ${name}`, () =>
      put(host, index, address, options.dad),
    );
    if (!added) continue;
    undo.push(`address ${address} of ${name}`, () => {
      if (hasOtherContainers(host, options.bridge, options.own)) return;
      deleteAddress(host, { index, address });
      // One that came between the two may have counted on it: it is on the bridge before it looks for the address.
      if (hasOtherContainers(host, options.bridge, options.own)) put(host, index, address, options.dad);
    });
  }
}

/**
 * A host that forwards IPv6 forgets the default route that it has from router advertisements, unless its uplink's accept_ra
 * is 2. To be called before forwarding is switched on.
 */
export function keepDefaultRouteOfHost(host: Rtnetlink): void {
  const learned = routes(host, { family: 'ipv6' }).filter(
    ({ destination, protocol, link }) =>
      isDefaultRoute(destination) && protocol === RTPROT_RA && link !== undefined,
  );
  for (const index of new Set(learned.map(({ link }) => link ?? 0))) {
    const uplink = linkByIndex(host, index);
    if (uplink !== undefined) keepTakingRouterAdvertisements(uplink.name);
  }
}

/** linux/rtnetlink.h */
const RTPROT_RA = 9;

/** @returns false when it is there already: another ADD was faster */
function put(host: Rtnetlink, index: number, address: string, dad: boolean): boolean {
  try {
    addAddress(host, { index, address, noDad: !dad, broadcast: 'computed' });
    return true;
  } catch (thrown) {
    if (isErrno(thrown, 'EEXIST')) return false;
    throw thrown;
  }
}
