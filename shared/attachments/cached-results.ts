import { readdirSync } from 'node:fs';
import * as z from 'zod/mini';
import { readRegularFile } from '../kernel/files.ts';
import { parseCidr } from '../net/address.ts';

/** The last ADD of an attachment as libcni caches it. */
export interface CachedResult {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
  /** Path of the network namespace; '' in files of libcni before 1.2. */
  readonly netns: string;
  /** With prefix length, as the plugins reported them. */
  readonly addresses: readonly string[];
  /** Interfaces that the result reports outside of the container. */
  readonly hostInterfaces: readonly string[];
  /** `ipam.dataDir` of the plugins of the configuration that was added. */
  readonly dataDirs: readonly string[];
  /** The configurations of the plugins, in the order of the list, without what the runtime adds (`runtimeConfig`, `prevResult`). */
  readonly plugins: readonly Readonly<Record<string, unknown>>[];
  /** CNI_ARGS. */
  readonly args: readonly (readonly [key: string, value: string])[];
  /** What the runtime gives to plugins that declare the capability, e.g. `portMappings`. */
  readonly capabilityArgs: Readonly<Record<string, unknown>>;
}

/** libcni's directory. Nomad, Podman and CRI-O use it; containerd does not cache results. */
export const RESULTS_DIR = '/var/lib/cni/results';

/**
 * Cached results of the network, or of one container on it. Files that cannot be read, or are no cached results, are skipped.
 * @param most read no more than this many, in the order of the file names
 */
export function cachedResults(
  network: string,
  containerId?: string,
  { most = Infinity, dir = RESULTS_DIR }: { most?: number; dir?: string } = {},
): CachedResult[] {
  const found: CachedResult[] = [];
  for (const file of filesOf(dir, containerId === undefined ? `${network}-` : `${network}-${containerId}-`)) {
    if (found.length >= most) break;
    const result = parseCacheFile(file);
    if (result?.network !== network) continue;
    if (containerId === undefined || result.containerId === containerId) found.push(result);
  }
  return found;
}

/**
 * A plugin's configuration as the attachment's last ADD read it, with `runtimeConfig` and without `prevResult`.
 * @param type the plugin's `type` in the list
 * @returns undefined where the runtime caches none, or the list has several plugins of this type
 */
export function configurationOfAdd(
  {
    network,
    containerId,
    ifname,
  }: { readonly network: string; readonly containerId: string; readonly ifname: string },
  type: unknown,
): Readonly<Record<string, unknown>> | undefined {
  const cached = cachedResults(network, containerId).find((one) => one.ifname === ifname);
  const [plugin, ...others] = (cached?.plugins ?? []).filter((one) => one['type'] === type);
  if (cached === undefined || plugin === undefined || others.length > 0) return undefined;
  const capabilities = (plugin['capabilities'] ?? {}) as Readonly<Record<string, unknown>>;
  const granted = Object.entries(cached.capabilityArgs).filter(([name]) => capabilities[name] === true);
  return granted.length === 0 ? plugin : { ...plugin, runtimeConfig: Object.fromEntries(granted) };
}

/**
 * The text of a file in libcni's cache. Neither a FIFO nor a device in its place can block the call or fill the memory.
 * @returns undefined when it is missing
 * @throws CniError 5
 */
export function readCacheFile(file: string): string | undefined {
  return readRegularFile(file, { limitBytes: LIMIT_BYTES, followLinks: false });
}

/** List, capability arguments and result of one attachment: 65,535 port mappings take 6 MB. */
const LIMIT_BYTES = 16 * 1024 * 1024;

const fileSchema = z.object({
  containerId: z.string().check(z.minLength(1)),
  ifName: z.string().check(z.minLength(1)),
  networkName: z.string(),
  netns: z._default(z.string(), ''),
  config: z._default(z.string(), ''),
  cniArgs: z._default(z.array(z.tuple([z.string(), z.string()])), []),
  capabilityArgs: z._default(z.record(z.string(), z.unknown()), {}),
  result: z._default(
    z.object({
      ips: z._default(z.array(z.object({ address: z.string() })), []),
      interfaces: z._default(z.array(z.object({ name: z.string(), sandbox: z.optional(z.string()) })), []),
    }),
    { ips: [], interfaces: [] },
  ),
});

/** A network configuration or a list of them. */
const ipamSchema = z.object({ ipam: z.optional(z.object({ dataDir: z.optional(z.string()) })) });
const listSchema = z.extend(ipamSchema, { plugins: z._default(z.array(z.unknown()), []) });

const pluginSchema = z.record(z.string(), z.unknown());

function parseCacheFile(file: string): CachedResult | undefined {
  try {
    const cached = z.safeParse(fileSchema, JSON.parse(readCacheFile(file) ?? ''));
    if (!cached.success) return undefined;
    const { containerId, ifName, networkName, netns, config, cniArgs, capabilityArgs, result } = cached.data;
    return {
      network: networkName,
      containerId,
      ifname: ifName,
      netns,
      addresses: result.ips.flatMap(({ address }) => (parseCidr(address) === undefined ? [] : [address])),
      hostInterfaces: result.interfaces.flatMap(({ name, sandbox = '' }) => (sandbox === '' ? [name] : [])),
      dataDirs: dataDirsIn(config),
      plugins: pluginsIn(config),
      args: cniArgs,
      capabilityArgs,
    };
  } catch {
    return undefined;
  }
}

function pluginsIn(base64: string): Record<string, unknown>[] {
  if (base64 === '') return [];
  try {
    const config: unknown = JSON.parse(Buffer.from(base64, 'base64').toString('utf8'));
    const list = z.safeParse(z.object({ plugins: z.array(pluginSchema) }), config);
    return list.success ? list.data.plugins : [pluginSchema.parse(config)];
  } catch {
    return [];
  }
}

function dataDirsIn(base64: string): string[] {
  if (base64 === '') return [];
  try {
    const list = listSchema.parse(JSON.parse(Buffer.from(base64, 'base64').toString('utf8')));
    return [list, ...list.plugins].flatMap((plugin) => dataDirOf(plugin) ?? []);
  } catch {
    return [];
  }
}

/** `ipam.dataDir` of a plugin's configuration, if it is an absolute path. */
export function dataDirOf(config: unknown): string | undefined {
  const parsed = z.safeParse(ipamSchema, config);
  const dataDir = parsed.success ? parsed.data.ipam?.dataDir : undefined;
  return dataDir?.startsWith('/') === true ? dataDir : undefined;
}

function filesOf(dir: string, prefix: string): string[] {
  try {
    const names = readdirSync(dir).filter((name) => name.startsWith(prefix));
    return names.sort().map((name) => `${dir}/${name}`);
  } catch {
    return [];
  }
}
