import * as z from 'zod/mini';
import { formatAddress, formatCidr, parseAddress, parseCidr, type IpAddress } from '../net/address.ts';
import { DEFAULT_DATA_DIR } from '../attachments/lease-files.ts';
import { decodeSettings, type Configured } from '../config/decode.ts';
import { joinProblems } from '../config/sentences.ts';
import { readArgs } from '../cni/environment.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import type { CniRoute } from '../cni/results.ts';
import { rangeOf, readRangeSets, type RangeSet, type RawRange } from './ranges.ts';

/** A plugin's `ipam` section, validated. */
export interface IpamConfig {
  /** Folder of all networks' stores; the network's own is `<dataDir>/<network>`. */
  readonly dataDir: string;
  /** In the order of the result's addresses: runtimeConfig.ipRanges, the single range of `ipam` itself, `ipam.ranges`. */
  readonly rangeSets: readonly RangeSet[];
  readonly routes: readonly CniRoute[];
  readonly resolvConf: string | undefined;
  /** From args.cni.ips, then runtimeConfig.ips; CNI_ARGS' IP comes with the call. */
  readonly requested: readonly IpAddress[];
}

/**
 * DEL and GC need only the store: they release what ADD reserved before the configuration became invalid.
 * @param raw the plugin's whole configuration: `ipam`, `runtimeConfig` and `args` are read
 */
export function configureIpam(raw: Readonly<Record<string, unknown>>): Configured<IpamConfig> {
  const store = decodeSettings(storeSchema, raw);
  const decoded = decodeSettings(poolSchema, raw);
  if ('problems' in store) {
    return { problems: 'problems' in decoded ? decoded.problems : store.problems, partial: {} };
  }
  const { ipam } = store.value;
  const dataDir = ipam?.dataDir === undefined || ipam.dataDir === '' ? DEFAULT_DATA_DIR : ipam.dataDir;
  const partial = ipam === undefined ? {} : { dataDir };
  if ('problems' in decoded) return { problems: decoded.problems, partial };
  const problems: string[] = [];
  const settings = { dataDir, ...readPool(decoded.value, problems) };
  return problems.length === 0 ? { settings } : { problems, partial };
}

const optionalText = z.optional(z.string());
const wholeNumber = z.optional(z.int().check(z.gte(0), z.lte(0xffff_ffff)));
const storeSchema = z.object({ ipam: z.optional(z.object({ dataDir: optionalText })) });

const rangeShape = {
  subnet: optionalText,
  rangeStart: optionalText,
  rangeEnd: optionalText,
  gateway: optionalText,
};
const rangeSetsSchema = z.optional(z.array(z.array(z.object(rangeShape))));
const addressesSchema = z.optional(z.array(z.string()));
const routeSchema = z.object({
  dst: z.string(),
  gw: optionalText,
  mtu: wholeNumber,
  advmss: wholeNumber,
  priority: wholeNumber,
  table: wholeNumber,
  scope: wholeNumber,
});
const poolSchema = z.object({
  ipam: z.optional(
    z.object({
      ...rangeShape,
      // A relative path would depend on the runtime's working directory. DEL still looks there.
      dataDir: z.optional(
        z
          .string()
          .check(
            z.refine((path) => path === '' || path.startsWith('/'), { error: 'must be an absolute path' }),
          ),
      ),
      ranges: rangeSetsSchema,
      routes: z.optional(z.array(routeSchema)),
      resolvConf: optionalText,
    }),
  ),
  runtimeConfig: z.optional(z.object({ ips: addressesSchema, ipRanges: rangeSetsSchema })),
  args: z.optional(z.object({ cni: z.optional(z.object({ ips: addressesSchema })) })),
});

type Pool = Pick<IpamConfig, 'rangeSets' | 'routes' | 'resolvConf' | 'requested'>;

function readPool(decoded: z.output<typeof poolSchema>, problems: string[]): Pool {
  const { ipam, runtimeConfig, args } = decoded;
  if (ipam === undefined) {
    problems.push("IPAM config missing 'ipam' key");
    return { rangeSets: [], routes: [], resolvConf: undefined, requested: [] };
  }
  const single: RawRange[][] = ipam.subnet === undefined ? [] : [[ipam]];
  const { sets, problems: inRanges } = readRangeSets([
    ...(runtimeConfig?.ipRanges ?? []),
    ...single,
    ...(ipam.ranges ?? []),
  ]);
  problems.push(...inRanges);
  const texts = [...(args?.cni?.ips ?? []), ...(runtimeConfig?.ips ?? [])];
  if (texts.length > MOST_REQUESTED)
    problems.push(`${texts.length} requested IP addresses; at most ${MOST_REQUESTED} are supported`);
  const requested = readAddresses(texts.slice(0, MOST_REQUESTED), problems);
  const routes = (ipam.routes ?? []).flatMap((route) => readRoute(route, problems));
  const resolvConf = ipam.resolvConf === '' ? undefined : ipam.resolvConf;
  return { rangeSets: sets, routes, resolvConf, requested };
}

/** Requested addresses may have a prefix length, which is ignored: the result has the subnet's. */
function readAddresses(texts: readonly string[], problems: string[]): IpAddress[] {
  return texts.flatMap((text) => {
    const address = text.includes('/') ? parseCidr(text)?.address : parseAddress(text);
    if (address === undefined) problems.push(`invalid IP address: ${text}`);
    return address === undefined ? [] : [address];
  });
}

/** Echoed into the result in canonical text. */
function readRoute(route: z.output<typeof routeSchema>, problems: string[]): CniRoute[] {
  const { dst, gw, ...numbers } = route;
  const destination = parseCidr(dst);
  if (destination === undefined) problems.push(`invalid CIDR address: ${dst} (dst of a route)`);
  const gateway = gw === undefined || gw === '' ? undefined : parseAddress(gw);
  if (gateway === undefined && gw !== undefined && gw !== '')
    problems.push(`invalid IP address: ${gw} (gw of a route)`);
  if (destination === undefined) return [];
  const result: CniRoute = { dst: formatCidr(destination) };
  if (gateway !== undefined) result.gw = formatAddress(gateway);
  for (const key of ['mtu', 'advmss', 'priority', 'table', 'scope'] as const) {
    const number = numbers[key];
    if (number !== undefined) result[key] = number;
  }
  return [result];
}

/** Each range set serves one: as many as there can be ranges. */
const MOST_REQUESTED = 1000;
/** In an error. */
const MOST_SHOWN = 10;
/**
 * The address requested from each range set: the first one that is in the set. Requests come from CNI_ARGS (`IP`, several
 * separated by commas), args.cni.ips and runtimeConfig.ips, in this order; every request must be served.
 * @returns one entry per set, undefined where any address will do
 * @throws CniError 4 for an invalid address in CNI_ARGS, 999 if a request is in no set, or two are in one set
 */
export function requestedPerSet({
  config,
  environment,
}: {
  config: IpamConfig;
  environment: Readonly<Record<string, string | undefined>>;
}): (IpAddress | undefined)[] {
  const problems: string[] = [];
  const fromArgs = readArgs(environment['CNI_ARGS'], ['IP']).get('IP') ?? '';
  const texts = fromArgs.split(',').filter((text) => text !== '');
  const requests = distinct([...readAddresses(texts, problems), ...config.requested]);
  if (problems.length > 0) {
    throw new CniError(CniCode.InvalidEnvironment, `${joinProblems(problems)} (IP in CNI_ARGS)`);
  }
  const perSet = config.rangeSets.map((set) => takeFirst(requests, set));
  if (requests.length > 0) throw notServed(requests, config.rangeSets);
  return perSet;
}

function takeFirst(requests: IpAddress[], set: RangeSet): IpAddress | undefined {
  const at = requests.findIndex((address) => rangeOf(set, address) !== undefined);
  return at < 0 ? undefined : requests.splice(at, 1)[0];
}

function distinct(addresses: readonly IpAddress[]): IpAddress[] {
  return [...new Map(addresses.map((address) => [formatAddress(address), address])).values()];
}

function notServed(left: readonly IpAddress[], sets: readonly RangeSet[]): CniError {
  const listed = left.slice(0, MOST_SHOWN).map(formatAddress).join(', ');
  const inSome = left.every((address) => sets.some((set) => rangeOf(set, address) !== undefined));
  return new CniError(CniCode.Internal, `failed to allocate all requested IPs: ${listed}`, {
    details: inSome
      ? 'each range set gives one address: two requests fall into the same set'
      : 'requested addresses must lie between rangeStart and rangeEnd of a range of this network',
  });
}
