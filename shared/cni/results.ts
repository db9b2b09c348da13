import * as z from 'zod/mini';
import { formatCidr, formatAddress, parseAddress, parseCidr } from '../net/address.ts';
import { decodeAs } from '../config/decode.ts';
import { CniCode, CniError } from './errors.ts';
import { show } from '../config/show.ts';
import type { CniDns, CniInterface, CniIp, CniResult, CniRoute, CniVersion } from './types.ts';
import { versionClass } from './versions.ts';

export { printResult, renderResult } from './results-render.ts';

/**
 * A result of any version of `version`'s class, in the suite's own shape: addresses in canonical text, empty members left
 * out, and `ips[].interface` only where it points at an interface (others' wrong ones would crash the Nomad agent, should
 * a chained plugin echo them). What the specification does not name is kept, at the top and in each entry.
 * Throws CniError 6: the class, or every wrong member, is named.
 * @param json the parsed document, or the value of prevResult
 * @param what names it in the message
 */
export function parseResult(version: CniVersion, json: unknown, what = 'result'): CniResult {
  const { cniVersion } = decode(z.looseObject({ cniVersion: z._default(z.string(), '') }), json, what);
  const readable = versionClass(version);
  if (cniVersion !== '' && !(readable as readonly string[]).includes(cniVersion)) {
    throw new CniError(
      CniCode.DecodingFailure,
      `${what} has cniVersion ${show(cniVersion)}, which does not fit version ${version}`,
      { details: `readable here: ${readable.join(', ')}` },
    );
  }
  return readable.includes('0.2.0') ? parseOldest(json, what) : parseLists(json, what);
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
function parseLists(json: unknown, what: string): CniResult {
  const { interfaces, ips, routes, dns, ...unknown } = decode(Lists, json, what);
  const valid = (index: number | undefined): boolean =>
    index !== undefined && index >= 0 && index < interfaces.length;
  return {
    interfaces: interfaces.map((entry) => ({ ...stripped<CniInterface>(entry), name: entry.name })),
    ips: ips.map((ip) =>
      stripped<CniIp>({
        ...ip,
        version: undefined,
        interface: valid(ip.interface) ? ip.interface : undefined,
      }),
    ),
    routes: routes.map((route) => stripped<CniRoute>(route)),
    dns: stripped<CniDns>(dns),
    ...kept(unknown),
  };
}

/** 0.1.0 and 0.2.0: at most one address a family, routes under the address, no interfaces. */
function parseOldest(json: unknown, what: string): CniResult {
  const { ip4, ip6, dns, ...unknown } = decode(Oldest, json, what);
  const present = [ip4, ip6].filter((ip) => ip !== undefined);
  return {
    interfaces: [],
    ips: present.map(({ ip, gateway }) => stripped<CniIp>({ address: ip, gateway })),
    routes: present.flatMap(({ routes }) => routes.map((route) => stripped<CniRoute>(route))),
    dns: stripped<CniDns>(dns),
    ...kept(unknown),
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
function stripped<T>(members: Readonly<Record<string, unknown>>): T {
  const said = Object.entries(members).filter(
    ([key, value]) =>
      value !== undefined &&
      value !== '' &&
      (value !== 0 || ZERO_COUNTS.includes(key)) &&
      !(Array.isArray(value) && value.length === 0),
  );
  return Object.fromEntries(said) as T;
}

function kept(members: Record<string, unknown>): Pick<CniResult, 'unknown'> {
  const unknown = { ...members };
  delete unknown['cniVersion'];
  return Object.keys(unknown).length === 0 ? {} : { unknown };
}
