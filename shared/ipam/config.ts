import * as z from 'zod/mini';
import { formatAddress, formatCidr, parseAddress, parseCidr, type IpAddress } from '../net/address.ts';
import { DEFAULT_DATA_DIR } from '../attachments/lease-files.ts';
import { decodeSettings, type Configured } from '../config/decode.ts';
import type { CniRoute } from '../cni/results.ts';
import { readRangeSets, type RangeSet, type RawRange } from './ranges.ts';

/** What the allocator makes of a plugin's configuration, validated as far as it goes without CNI_ARGS. */
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
 * DEL and GC need only the store: they release what an ADD took before the configuration became invalid.
 * @param raw the plugin's whole configuration: `ipam`, `runtimeConfig` and `args` are read
 */
export function configureIpam(raw: Readonly<Record<string, unknown>>): Configured<IpamConfig> {
  const store = decodeSettings(storeSchema, raw);
  const dataDir = 'value' in store ? store.value.ipam?.dataDir : undefined;
  const partial = { dataDir: dataDir === undefined || dataDir === '' ? DEFAULT_DATA_DIR : dataDir };
  const decoded = decodeSettings(poolSchema, raw);
  if ('problems' in decoded) return { problems: decoded.problems, partial };
  const problems: string[] = [];
  const settings = { ...partial, ...readPool(decoded.value, problems) };
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
      // Relative to what? To wherever the runtime happens to stand. A DEL still looks there: an ADD may have, before.
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
  const requested = readAddresses([...(args?.cni?.ips ?? []), ...(runtimeConfig?.ips ?? [])], problems);
  const routes = (ipam.routes ?? []).flatMap((route) => readRoute(route, problems));
  const resolvConf = ipam.resolvConf === '' ? undefined : ipam.resolvConf;
  return { rangeSets: sets, routes, resolvConf, requested };
}

/** Requested addresses may carry a prefix length; it counts for nothing, the subnet's own is used. */
export function readAddresses(texts: readonly string[], problems: string[]): IpAddress[] {
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
