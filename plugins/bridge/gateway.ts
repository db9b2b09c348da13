import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { step } from '../../shared/cni/undo.ts';
import { isErrno } from '../../shared/kernel/errno.ts';
import { addAddress, addresses, deleteAddress } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import { routes } from '../../shared/kernel/rtnetlink/routes.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { readSysctl, replaceSysctl, writeSysctl } from '../../shared/kernel/sysctl.ts';
import type { AddressFamily } from '../../shared/net/address.ts';
import { hasOtherContainers, ignoringAbsence } from './bridge.ts';
import type { AddContext } from './context.ts';
import { conflicting, isDefaultRoute } from './plan.ts';

/** The link that has the containers' gateway addresses: the bridge, or the gateway interface of a VLAN. */
interface GatewayLink {
  readonly index: number;
  readonly name: string;
}

/** Changes of the gateway link's addresses. */
export interface GatewayPlan {
  readonly remove: readonly string[];
  readonly add: readonly string[];
}

/**
 * Compares the addresses of the gateway link with the wanted ones; changes nothing.
 * @param force replace a conflicting address instead of failing
 * @throws CniError 7 for a conflicting address: any other IPv4 address, an IPv6 one of an overlapping prefix
 */
export function planGateway(
  host: Rtnetlink,
  link: GatewayLink,
  wanted: readonly string[],
  force: boolean,
): GatewayPlan {
  const present = addresses(host, { index: link.index }).map(({ address }) => address);
  const add = wanted.filter((address) => !present.includes(address));
  const conflicts = add.flatMap((address) =>
    conflicting(address, present, wanted).map((other) => ({ address, other })),
  );
  const [first] = conflicts;
  if (first !== undefined && !force) {
    throw new CniError(
      CniCode.InvalidNetworkConfig,
      `${JSON.stringify(link.name)} already has an IP address different from ${first.address}`,
      { details: `it has ${first.other}; remove it, or set "forceAddress" to replace it` },
    );
  }
  return { add, remove: [...new Set(conflicts.map(({ other }) => other))] };
}

/**
 * Applies the plan. All containers share the gateway address: the undo removes it only while no other one is there.
 * @param bridge index of the bridge
 * @param own indexes of the ports that this ADD created
 */
export function applyGateway(
  { host, call, undo }: AddContext,
  { index, name }: GatewayLink,
  plan: GatewayPlan,
  { bridge, own }: { readonly bridge: number; readonly own: readonly number[] },
): void {
  const noDad = !call.config.enabledad;
  for (const address of plan.remove) {
    step(`remove ${address} from ${name}`, () => deleteAddress(host, { index, address }));
    undo.push(`removal of ${address} from ${name}`, () => put(host, index, address, noDad));
  }
  for (const address of plan.add) {
    const added = step(`add the gateway address ${address} to ${name}`, () =>
      put(host, index, address, noDad),
    );
    if (!added) continue;
    undo.push(`address ${address} of ${name}`, () => {
      if (hasOtherContainers(host, bridge, own)) return;
      deleteAddress(host, { index, address });
      // Another ADD attaches its port before it reads the addresses, and may have seen this one: put it back.
      if (hasOtherContainers(host, bridge, own)) put(host, index, address, noDad);
    });
  }
}

/** Switches forwarding on if it is off: writing it walks every interface, and /proc/sys may be read-only where it is on. */
export function enableForwarding(host: Rtnetlink, families: readonly AddressFamily[]): void {
  if (families.includes('ipv4')) step('enable forwarding', () => writeSysctl(IPV4_FORWARDING, 1));
  if (families.includes('ipv6') && readSysctl(IPV6_FORWARDING) !== '1') {
    keepDefaultRouteOfHost(host);
    step('enable forwarding', () => writeSysctl(IPV6_FORWARDING, 1));
  }
}

/** @returns the sysctls that are not as a gateway needs them */
export function missingForwarding(families: readonly AddressFamily[]): string[] {
  const wanted = families.map((family) => (family === 'ipv4' ? IPV4_FORWARDING : IPV6_FORWARDING));
  return wanted.filter((path) => readSysctl(path) !== '1');
}

const IPV4_FORWARDING = 'net/ipv4/ip_forward';
const IPV6_FORWARDING = 'net/ipv6/conf/all/forwarding';
/** linux/rtnetlink.h */
const RTPROT_RA = 9;

/**
 * A host that forwards IPv6 drops the default route that it learned from router advertisements, unless accept_ra of its uplink is 2.
 */
function keepDefaultRouteOfHost(host: Rtnetlink): void {
  const learned = routes(host, { family: 'ipv6' }).filter(
    ({ destination, protocol, link }) =>
      isDefaultRoute(destination) && protocol === RTPROT_RA && link !== undefined,
  );
  for (const index of new Set(learned.map(({ link }) => link ?? 0))) {
    const name = linkByIndex(host, index)?.name;
    if (name === undefined) continue;
    ignoringAbsence(() => replaceSysctl(`net/ipv6/conf/${name}/accept_ra`, '1', '2'));
  }
}

/** @returns false when another ADD added the address first */
function put(host: Rtnetlink, index: number, address: string, noDad: boolean): boolean {
  try {
    addAddress(host, { index, address, noDad, broadcast: 'computed' });
    return true;
  } catch (thrown) {
    if (isErrno(thrown, 'EEXIST')) return false;
    throw thrown;
  }
}
