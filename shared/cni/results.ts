import * as z from 'zod/mini';
import { formatAddress, formatCidr, parseAddress, parseCidr } from '../net/address.ts';
import { decodeAs } from '../config/decode.ts';
import { show } from '../config/json.ts';
import { CniCode, CniError } from './errors.ts';
import { versionClass, type CniVersion } from './versions.ts';

/** Shapes of CNI results, CNI SPEC 1.1.0 "Success". Other versions are converted when read and written. */
export interface CniInterface {
  name: string;
  mac?: string;
  /** Bytes. 1.1.0 only. */
  mtu?: number;
  /** Path of the network namespace; absent for interfaces on the host. */
  sandbox?: string;
  socketPath?: string;
  pciID?: string;
}

export interface CniIp {
  /** Index into `interfaces`. Nomad's agent panics on one that is out of range: emit strictly valid ones. */
  interface?: number;
  /** Address with prefix length, canonical text: `172.26.64.5/20`. */
  address: string;
  gateway?: string;
}

export interface CniRoute {
  dst: string;
  gw?: string;
  mtu?: number;
  advmss?: number;
  priority?: number;
  table?: number;
  scope?: number;
}

export interface CniDns {
  nameservers?: string[];
  domain?: string;
  search?: string[];
  options?: string[];
}

/** The suite's one internal result, in the newest shape. `dns` is always present and may be empty. */
export interface CniResult {
  interfaces: CniInterface[];
  ips: CniIp[];
  routes: CniRoute[];
  dns: CniDns;
  /** Keys of a prevResult that the specification does not name; carried through unchanged. */
  unknown?: Readonly<Record<string, unknown>>;
}

const Versioned = z.looseObject({ cniVersion: z._default(z.string(), '') });

/**
 * A result of any version of `version`'s class, in the suite's own shape: addresses in canonical text, empty members left
 * out, and `ips[].interface` only where it is the index of an interface (the Nomad agent panics on any other, should a chained
 * plugin echo it). Members that the specification does not name are kept, at the top and in each entry.
 * Throws CniError 6 naming the class, or every wrong member.
 * @param json the parsed document, or the value of prevResult
 * @param what names it in the message
 */
export function parseResult(version: CniVersion, json: unknown, what = 'result'): CniResult {
  const { cniVersion } = decode(Versioned, json, what);
  const readable = versionClass(version);
  if (cniVersion !== '' && !(readable as readonly string[]).includes(cniVersion)) {
    throw new CniError(
      CniCode.DecodingFailure,
      `${what} has cniVersion ${show(cniVersion)}, which cannot be read as version ${version}`,
      { details: `expected one of ${readable.join(', ')}` },
    );
  }
  return readable.includes('0.2.0') ? parse01(json, what) : parse03(json, what);
}

const cidr = z.string().check(
  z.refine(
    (text) => parseCidr(text) !== undefined,
    'must be an address with a prefix length like "10.0.0.2/24"',
  ),
  z.overwrite((text) => {
    const parsed = parseCidr(text);
    return parsed === undefined ? text : formatCidr(parsed);
  }),
);

/** Empty text is no address, as it is for Go. */
const address = z.string().check(
  z.refine(
    (text) => text === '' || parseAddress(text) !== undefined,
    'must be an IP address like "10.0.0.1"',
  ),
  z.overwrite((text) => {
    const parsed = parseAddress(text);
    return parsed === undefined ? text : formatAddress(parsed);
  }),
);

const text = z.optional(z.string());
const number = z.optional(z.int());
const texts = z.optional(z.array(z.string()));

const Interface = z.looseObject({
  name: z._default(z.string(), ''),
  mac: text,
  mtu: number,
  sandbox: text,
  socketPath: text,
  pciID: text,
});
const Ip = z.looseObject({
  version: z.optional(z.unknown()),
  interface: number,
  address: cidr,
  gateway: z.optional(address),
});
const Route = z.looseObject({
  dst: cidr,
  gw: z.optional(address),
  mtu: number,
  advmss: number,
  priority: number,
  table: number,
  scope: number,
});
const Dns = z.looseObject({ nameservers: texts, domain: text, search: texts, options: texts });

const Lists = z.looseObject({
  cniVersion: text,
  interfaces: z._default(z.array(Interface), []),
  ips: z._default(z.array(Ip), []),
  routes: z._default(z.array(Route), []),
  dns: z.prefault(Dns, {}),
});

const OldestIp = z.object({
  ip: cidr,
  gateway: z.optional(address),
  routes: z._default(z.array(z.object({ dst: cidr, gw: z.optional(address) })), []),
});
const Oldest = z.looseObject({
  cniVersion: text,
  ip4: z.optional(OldestIp),
  ip6: z.optional(OldestIp),
  dns: z.prefault(Dns, {}),
});

/** 0.3.0 and later. */
function parse03(json: unknown, what: string): CniResult {
  const { interfaces, ips, routes, dns, ...unknown } = decode(Lists, json, what);
  const valid = (index: number | undefined): boolean =>
    index !== undefined && index >= 0 && index < interfaces.length;
  return {
    interfaces: interfaces.map((entry) => ({ ...withoutEmpty<CniInterface>(entry), name: entry.name })),
    ips: ips.map((ip) =>
      withoutEmpty<CniIp>({
        ...ip,
        version: undefined,
        interface: valid(ip.interface) ? ip.interface : undefined,
      }),
    ),
    routes: routes.map((route) => withoutEmpty<CniRoute>(route)),
    dns: withoutEmpty<CniDns>(dns),
    ...unknownMembers(unknown),
  };
}

/** 0.1.0 and 0.2.0: at most one address a family, routes under the address, no interfaces. */
function parse01(json: unknown, what: string): CniResult {
  const { ip4, ip6, dns, ...unknown } = decode(Oldest, json, what);
  const present = [ip4, ip6].filter((ip) => ip !== undefined);
  return {
    interfaces: [],
    ips: present.map(({ ip, gateway }) => withoutEmpty<CniIp>({ address: ip, gateway })),
    routes: present.flatMap(({ routes }) => routes.map((route) => withoutEmpty<CniRoute>(route))),
    dns: withoutEmpty<CniDns>(dns),
    ...unknownMembers(unknown),
  };
}

function decode<Schema extends z.core.$ZodType>(
  schema: Schema,
  json: unknown,
  what: string,
): z.core.output<Schema> {
  return decodeAs(schema, json, CniCode.DecodingFailure, `invalid ${what}`);
}

/** 0 is a value for these; for mtu, advmss and priority it means "not set". */
const ZERO_COUNTS = ['table', 'scope', 'interface'];

/** Members that mean nothing are left out, as the reference's results have them. */
function withoutEmpty<T>(members: Readonly<Record<string, unknown>>): T {
  const present = Object.entries(members).filter(
    ([key, value]) =>
      value !== undefined &&
      value !== '' &&
      (value !== 0 || ZERO_COUNTS.includes(key)) &&
      !(Array.isArray(value) && value.length === 0),
  );
  return Object.fromEntries(present) as T;
}

function unknownMembers(members: Record<string, unknown>): Pick<CniResult, 'unknown'> {
  const unknown = { ...members };
  delete unknown['cniVersion'];
  return Object.keys(unknown).length === 0 ? {} : { unknown };
}

/** The text for stdout: indented by four spaces, no newline at the end, as the reference prints it. */
export function printResult(version: CniVersion, result: CniResult): string {
  return JSON.stringify(renderResult(version, result), null, 4);
}

/**
 * The document for `version`, keys in the reference's order (CNI SPEC of each version, "Success"). Throws CniError 999 for an
 * `ips[].interface` out of range (Nomad's agent panics on one), and for 0.1.0 and 0.2.0 without any address.
 */
export function renderResult(version: CniVersion, result: CniResult): Record<string, unknown> {
  checkIndexes(result);
  const members = versionClass(version);
  if (members.includes('0.2.0')) return render01(version, result);
  if (members.includes('0.4.0')) return render03(version, result);
  return render10(version, result);
}

/** 1.0.0 and 1.1.0: every level sorted by key; members of 1.1.0 stay in 1.0.0, where readers skip them. */
function render10(version: CniVersion, { interfaces, ips, routes, dns, unknown }: CniResult): Members {
  const dnsMembers = present({ ...dns });
  const known = present({
    cniVersion: version,
    interfaces: interfaces.map((entry) => ({ ...present({ ...entry }), name: entry.name })),
    ips: ips.map((ip) => present({ ...ip })),
    routes: routes.map((route) => present({ ...route })),
    dns: Object.keys(dnsMembers).length > 0 ? dnsMembers : undefined,
  });
  return sorted({ ...unknown, ...known }) as Members;
}

/** 0.3.0, 0.3.1, 0.4.0: each address names its family, `dns` is always present, interfaces have no members of 1.1.0. */
function render03(version: CniVersion, { interfaces, ips, routes, dns, unknown }: CniResult): Members {
  const known = present({
    cniVersion: version,
    interfaces: interfaces.map(interface03),
    ips: ips.map(ip03),
    routes: routes.map(orderedRoute),
    dns: orderedDns(dns),
  });
  return { ...known, ...unknown };
}

/** 0.1.0, 0.2.0: the first address of each family with that family's routes; there are no interfaces. */
function render01(version: CniVersion, { ips, routes, dns, unknown }: CniResult): Members {
  const ip4 = ips.find((ip) => familyOf(ip.address) === 'ipv4');
  const ip6 = ips.find((ip) => familyOf(ip.address) === 'ipv6');
  if (ip4 === undefined && ip6 === undefined) {
    throw new CniError(CniCode.Internal, 'cannot convert: no valid IP addresses', {
      details: `a result of version ${version} must have an address; use cniVersion 0.3.0 or newer`,
    });
  }
  const entry = (ip: CniIp | undefined): Members | undefined =>
    ip && present({ ip: ip.address, gateway: ip.gateway, routes: routes01(routes, familyOf(ip.address)) });
  const known = present({ cniVersion: version, ip4: entry(ip4), ip6: entry(ip6), dns: orderedDns(dns) });
  return { ...known, ...unknown };
}

function routes01(routes: readonly CniRoute[], family: string | undefined): Members[] {
  return routes.filter(({ dst }) => familyOf(dst) === family).map(({ dst, gw }) => present({ dst, gw }));
}

function interface03({ name, mac, sandbox, ...rest }: CniInterface): Members {
  return {
    name,
    ...present({ mac, sandbox, ...rest, mtu: undefined, socketPath: undefined, pciID: undefined }),
  };
}

function ip03(ip: CniIp): Members {
  const { interface: index, address, gateway, ...rest } = ip;
  const version = familyOf(address) === 'ipv6' ? '6' : '4';
  return present({ version, interface: index, address, gateway, ...rest });
}

function orderedRoute(route: CniRoute): Members {
  const { dst, gw, mtu, advmss, priority, table, scope, ...rest } = route;
  return present({ dst, gw, mtu, advmss, priority, table, scope, ...rest });
}

function orderedDns({ nameservers, domain, search, options, ...rest }: CniDns): Members {
  return present({ nameservers, domain, search, options, ...rest });
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

/** Without empty members: the reference leaves out empty text and lists, but never an empty object. */
function present(members: Members): Members {
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
