import { parseCidr } from '../net/address.ts';
import { CniCode, CniError } from './errors.ts';
import type { CniDns, CniInterface, CniIp, CniResult, CniRoute, CniVersion } from './types.ts';
import { versionClass } from './versions.ts';

/** The text for stdout: four blanks of indent and no line end, as the reference prints it. */
export function printResult(version: CniVersion, result: CniResult): string {
  return JSON.stringify(renderResult(version, result), null, 4);
}

/**
 * The document for `version`, keys in the reference's order (CNI SPEC of each version, "Success"). Throws CniError 999 for an
 * `ips[].interface` that points nowhere (Nomad's agent panics on one), and for 0.1.0 and 0.2.0 without any address.
 */
export function renderResult(version: CniVersion, result: CniResult): Record<string, unknown> {
  checkIndexes(result);
  const members = versionClass(version);
  if (members.includes('0.2.0')) return oldest(version, result);
  if (members.includes('0.4.0')) return middle(version, result);
  return newest(version, result);
}

/** 1.0.0 and 1.1.0: every level sorted by key; members of 1.1.0 stay in 1.0.0, where readers skip them. */
function newest(version: CniVersion, { interfaces, ips, routes, dns, unknown }: CniResult): Members {
  const dnsMembers = said({ ...dns });
  const known = said({
    cniVersion: version,
    interfaces: interfaces.map((entry) => ({ ...said({ ...entry }), name: entry.name })),
    ips: ips.map((ip) => said({ ...ip })),
    routes: routes.map((route) => said({ ...route })),
    dns: Object.keys(dnsMembers).length > 0 ? dnsMembers : undefined,
  });
  return sorted({ ...unknown, ...known }) as Members;
}

/** 0.3.0, 0.3.1, 0.4.0: addresses say their family, `dns` is always there, interfaces have no members of 1.1.0. */
function middle(version: CniVersion, { interfaces, ips, routes, dns, unknown }: CniResult): Members {
  const known = said({
    cniVersion: version,
    interfaces: interfaces.map(middleInterface),
    ips: ips.map(middleIp),
    routes: routes.map(orderedRoute),
    dns: orderedDns(dns),
  });
  return { ...known, ...unknown };
}

/** 0.1.0, 0.2.0: the first address of each family with that family's routes; interfaces cannot be told. */
function oldest(version: CniVersion, { ips, routes, dns, unknown }: CniResult): Members {
  const ip4 = ips.find((ip) => familyOf(ip.address) === 'ipv4');
  const ip6 = ips.find((ip) => familyOf(ip.address) === 'ipv6');
  if (ip4 === undefined && ip6 === undefined) {
    throw new CniError(CniCode.Internal, 'cannot convert: no valid IP addresses', {
      details: `a result of version ${version} must have an address; use cniVersion 0.3.0 or newer`,
    });
  }
  const entry = (ip: CniIp | undefined): Members | undefined =>
    ip && said({ ip: ip.address, gateway: ip.gateway, routes: oldestRoutes(routes, familyOf(ip.address)) });
  const known = said({ cniVersion: version, ip4: entry(ip4), ip6: entry(ip6), dns: orderedDns(dns) });
  return { ...known, ...unknown };
}

function oldestRoutes(routes: readonly CniRoute[], family: string | undefined): Members[] {
  return routes.filter(({ dst }) => familyOf(dst) === family).map(({ dst, gw }) => said({ dst, gw }));
}

function middleInterface({ name, mac, sandbox, ...rest }: CniInterface): Members {
  return {
    name,
    ...said({ mac, sandbox, ...rest, mtu: undefined, socketPath: undefined, pciID: undefined }),
  };
}

function middleIp(ip: CniIp): Members {
  const { interface: index, address, gateway, ...rest } = ip;
  const version = familyOf(address) === 'ipv6' ? '6' : '4';
  return said({ version, interface: index, address, gateway, ...rest });
}

function orderedRoute(route: CniRoute): Members {
  const { dst, gw, mtu, advmss, priority, table, scope, ...rest } = route;
  return said({ dst, gw, mtu, advmss, priority, table, scope, ...rest });
}

function orderedDns({ nameservers, domain, search, options, ...rest }: CniDns): Members {
  return said({ nameservers, domain, search, options, ...rest });
}

function checkIndexes({ interfaces, ips }: CniResult): void {
  for (const { interface: index, address } of ips) {
    if (index === undefined || (Number.isInteger(index) && index >= 0 && index < interfaces.length)) continue;
    throw new CniError(
      CniCode.Internal,
      `the result's address ${address} names interface ${index}, but there are ${interfaces.length}`,
    );
  }
}

function familyOf(cidr: string): 'ipv4' | 'ipv6' | undefined {
  return parseCidr(cidr)?.address.family;
}

type Members = Record<string, unknown>;

/** Without what is empty: the reference leaves out empty text and lists, but never an empty object. */
function said(members: Members): Members {
  return Object.fromEntries(
    Object.entries(members).filter(
      ([, value]) => value !== undefined && value !== '' && !(Array.isArray(value) && value.length === 0),
    ),
  );
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (!isPlain(value)) return value;
  const entries = Object.entries(value).sort(([one], [other]) => (one < other ? -1 : 1));
  return Object.fromEntries(entries.map(([key, member]) => [key, sorted(member)]));
}

function isPlain(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
