import {
  containsAddress,
  firstAddress,
  formatAddress,
  formatCidr,
  nextAddress,
  networkOf,
  parseAddress,
  parseCidr,
  sameAddress,
  type AddressFamily,
  type Cidr,
} from '../../shared/net/address.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { CniIp, CniRoute } from '../../shared/cni/results.ts';
import type { PortVlan } from '../../shared/kernel/rtnetlink/bridge-ports.ts';
import type { BridgeConfig } from './config.ts';

/** What the IPAM result means for container and bridge. */
export interface Layer3 {
  readonly families: readonly AddressFamily[];
  /** For the container's interface, with prefix length. */
  readonly addresses: readonly string[];
  readonly routes: readonly PlannedRoute[];
  /** For the bridge, with prefix length; empty unless the bridge is a gateway. */
  readonly gateways: readonly string[];
  /** What the result reports. */
  readonly ips: CniIp[];
  readonly resultRoutes: CniRoute[];
}

export interface PlannedRoute {
  readonly destination: string;
  readonly gateway: string | undefined;
  readonly route: CniRoute;
}

/** Addresses whose traffic to other networks is masqueraded, with prefix length. */
export interface Masqueraded {
  /** Of this interface. */
  readonly addresses: readonly string[];
  /** Of the container's other interfaces, whose rules stay. */
  readonly keep: readonly string[];
}

/** Index of the container's interface in the result: bridge, host end, container end. */
export const CONTAINER_INTERFACE = 2;

/**
 * @param ipam the IPAM plugin's result
 * @throws CniError 7 for a result that cannot be used
 */
export function planLayer3(
  config: Pick<BridgeConfig, 'isGateway' | 'isDefaultGateway'>,
  ipam: { readonly ips: readonly CniIp[]; readonly routes: readonly CniRoute[] },
): Layer3 {
  if (ipam.ips.length === 0) {
    throw new CniError(CniCode.InvalidNetworkConfig, 'IPAM plugin returned missing IP config');
  }
  const interfaces = ipam.ips.map((ip) => readIp(ip, config.isGateway));
  const resultRoutes = config.isDefaultGateway
    ? withDefaultRoutes(ipam.routes, interfaces)
    : [...ipam.routes];
  return {
    families: [...new Set(interfaces.map(({ cidr }) => cidr.address.family))],
    addresses: [...new Set(interfaces.map(({ cidr }) => formatCidr(cidr)))],
    routes: plannedRoutes(resultRoutes, interfaces),
    gateways: config.isGateway ? gatewayAddresses(interfaces) : [],
    ips: interfaces.map(({ cidr, gateway }) => ({
      interface: CONTAINER_INTERFACE,
      address: formatCidr(cidr),
      ...(gateway === undefined ? {} : { gateway: formatAddress(gateway) }),
    })),
    resultRoutes,
  };
}

export function hasVlans({ vlan, vlanTrunk }: Pick<BridgeConfig, 'vlan' | 'vlanTrunk'>): boolean {
  return vlan !== 0 || vlanTrunk !== undefined;
}

/** The VLANs of a port; none when the configuration names none. */
export function wantedVlans({ vlan, vlanTrunk }: Pick<BridgeConfig, 'vlan' | 'vlanTrunk'>): PortVlan[] {
  if (!hasVlans({ vlan, vlanTrunk })) return [];
  // A trunk without `vlan` keeps VLAN 1 for untagged frames.
  const native: PortVlan = { vid: vlan === 0 ? 1 : vlan, pvid: true, untagged: true };
  const tagged = (vlanTrunk ?? []).filter((vid) => vid !== native.vid).map((vid) => ({ vid }));
  return [native, ...ranges(tagged)];
}

/** Consecutive VLANs as one range each: a trunk of 4094 fits into one message. */
function ranges(vlans: readonly PortVlan[]): PortVlan[] {
  const result: PortVlan[] = [];
  for (const { vid } of vlans) {
    const last = result.at(-1);
    if (last !== undefined && (last.lastVid ?? last.vid) === vid - 1)
      result[result.length - 1] = { ...last, lastVid: vid };
    else result.push({ vid });
  }
  return result;
}

/** The kernel's number of a route's routing table; 0 or none is the main table. */
export function tableOf({ table }: CniRoute): number {
  return table === undefined || table === 0 ? MAIN_TABLE : table;
}

export function isDefaultRoute(destination: string): boolean {
  const cidr = parseCidr(destination);
  return cidr?.prefix === 0;
}

interface Assigned {
  readonly cidr: Cidr;
  readonly gateway: Cidr['address'] | undefined;
}

function readIp({ address, gateway }: CniIp, isGateway: boolean): Assigned {
  const cidr = parseCidr(address);
  if (cidr === undefined)
    throw invalidResult(`the address ${JSON.stringify(address)} is not of the form ADDRESS/PREFIX`);
  const given = gateway === undefined || gateway === '' ? undefined : parseAddress(gateway);
  if (gateway && given === undefined)
    throw invalidResult(`the gateway ${JSON.stringify(gateway)} is not an IP address`);
  if (given !== undefined && given.family !== cidr.address.family) {
    throw invalidResult(`the gateway ${gateway} is not of the family of the address ${address}`);
  }
  const chosen = given ?? (isGateway ? nextAddress(firstAddress(cidr)) : undefined);
  if (isGateway && chosen !== undefined && sameAddress(chosen, cidr.address)) {
    throw invalidResult(`the address ${address} is the bridge's gateway address`);
  }
  return { cidr, gateway: chosen };
}

/**
 * Every family gets a default route through the bridge. A default route that IPAM returned without a gateway becomes that route; the
 * reference adds a second one, which the kernel refuses.
 */
function withDefaultRoutes(routes: readonly CniRoute[], interfaces: readonly Assigned[]): CniRoute[] {
  const result = [...routes];
  for (const family of ['ipv4', 'ipv6'] as const) {
    const gateway = firstGateway(interfaces, family);
    if (gateway === undefined) continue;
    const isDefault = (route: CniRoute): boolean =>
      isDefaultRoute(route.dst) && familyOf(route.dst) === family && tableOf(route) === MAIN_TABLE;
    const at = result.findIndex(isDefault);
    const found = result[at];
    if (found === undefined) result.push({ dst: DEFAULT[family], gw: gateway });
    else if (!found.gw) result[at] = { ...found, gw: gateway };
  }
  return result;
}

/** linux/rtnetlink.h RT_TABLE_MAIN */
const MAIN_TABLE = 254;
const DEFAULT = { ipv4: '0.0.0.0/0', ipv6: '::/0' } as const;

/** A route without a gateway uses the first gateway of its family; without any, its destination is on the link. */
function plannedRoutes(routes: readonly CniRoute[], interfaces: readonly Assigned[]): PlannedRoute[] {
  const planned = new Map<string, PlannedRoute>();
  for (const route of routes) {
    const cidr = parseCidr(route.dst);
    if (cidr === undefined)
      throw invalidResult(`the route to ${JSON.stringify(route.dst)} has no valid destination`);
    const given = route.gw ? parseAddress(route.gw) : undefined;
    if (route.gw && given?.family !== cidr.address.family) {
      throw invalidResult(`the route to ${route.dst} has an unusable gateway ${JSON.stringify(route.gw)}`);
    }
    const destination = formatCidr(networkOf(cidr));
    const gateway = given ? formatAddress(given) : firstGateway(interfaces, cidr.address.family);
    const key = [destination, gateway, tableOf(route), route.priority ?? 0].join(' ');
    if (!planned.has(key)) planned.set(key, { destination, gateway, route });
  }
  return [...planned.values()];
}

function gatewayAddresses(interfaces: readonly Assigned[]): string[] {
  const texts = interfaces.flatMap(({ cidr, gateway }) =>
    gateway === undefined ? [] : [formatCidr({ address: gateway, prefix: cidr.prefix })],
  );
  return [...new Set(texts)];
}

function firstGateway(interfaces: readonly Assigned[], family: AddressFamily): string | undefined {
  const gateway = interfaces.find((one) => one.gateway?.family === family)?.gateway;
  return gateway === undefined ? undefined : formatAddress(gateway);
}

function familyOf(cidr: string): AddressFamily | undefined {
  return parseCidr(cidr)?.address.family;
}

function invalidResult(problem: string): CniError {
  return new CniError(CniCode.InvalidNetworkConfig, `invalid result of the IPAM plugin: ${problem}`);
}

/** Addresses of the bridge that conflict with a wanted gateway address. */
export function conflicting(
  wanted: string,
  present: readonly string[],
  planned: readonly string[],
): string[] {
  const gateway = parseCidr(wanted);
  return present.filter((text) => {
    const other = parseCidr(text);
    if (gateway === undefined || other === undefined || planned.includes(text)) return false;
    if (other.address.family !== gateway.address.family) return false;
    // Several IPv6 networks may share a bridge; with IPv4 the reference allows one network per bridge.
    return gateway.address.family === 'ipv4' || overlap(gateway, other);
  });
}

function overlap(one: Cidr, other: Cidr): boolean {
  return containsAddress(one, other.address) || containsAddress(other, one.address);
}
