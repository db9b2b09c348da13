import * as z from 'zod/mini';
import { formatAddress, formatCidr, parseAddress, parseCidr, type IpAddress } from '../net/address.ts';
import { DEFAULT_DATA_DIR } from '../attachments/lease-files.ts';
import { decodeConfig } from '../config/decode.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import type { CniRoute } from '../cni/types.ts';
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
  /** What is wrong with the pool. ADD, CHECK and STATUS throw it; DEL and GC need only the store and go on. */
  readonly problem: CniError | undefined;
}

/**
 * @param raw the plugin's whole configuration: `ipam`, `runtimeConfig` and `args` are read
 * @throws CniError 7 when even the store cannot be told (`dataDir` is no text); every other mistake ends in `problem`,
 *   because a DEL must be able to release what an ADD took before somebody broke the configuration
 */
export function configureIpam(raw: Readonly<Record<string, unknown>>): IpamConfig {
  const dataDir = decodeConfig(storeSchema, raw, WHAT).ipam?.dataDir;
  const store = { dataDir: dataDir === undefined || dataDir === '' ? DEFAULT_DATA_DIR : dataDir };
  try {
    return { ...store, ...readPool(raw), problem: undefined };
  } catch (thrown) {
    if (!(thrown instanceof CniError)) throw thrown;
    return { ...store, rangeSets: [], routes: [], resolvConf: undefined, requested: [], problem: thrown };
  }
}

const WHAT = 'host-local configuration';

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

function readPool(raw: Readonly<Record<string, unknown>>): Pool {
  const { ipam, runtimeConfig, args } = decodeConfig(poolSchema, raw, WHAT);
  if (ipam === undefined) throw new CniError(CniCode.InvalidNetworkConfig, "IPAM config missing 'ipam' key");
  const single: RawRange[][] = ipam.subnet === undefined ? [] : [[ipam]];
  const { sets, problems } = readRangeSets([
    ...(runtimeConfig?.ipRanges ?? []),
    ...single,
    ...(ipam.ranges ?? []),
  ]);
  const requested = readAddresses([...(args?.cni?.ips ?? []), ...(runtimeConfig?.ips ?? [])], problems);
  const routes = (ipam.routes ?? []).flatMap((route) => readRoute(route, problems));
  if (problems.length > 0) throw new CniError(CniCode.InvalidNetworkConfig, problems.join('; '));
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
