import { readdirSync, statSync } from 'node:fs';
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

/** With what only callers that look at the whole host need. */
export interface CompleteCachedResult extends CachedResult {
  readonly file: string;
  /** When the last ADD ended: the file's modification time, in milliseconds since 1970. */
  readonly addedAtMs: number;
  /** Of the list; undefined if the file has none. */
  readonly cniVersion: string | undefined;
  /** The last plugin's result, which CHECK and DEL get as `prevResult`; undefined if the file has none. */
  readonly result: unknown;
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
    const cached = parseCacheFile(file)?.cached;
    if (cached?.network !== network) continue;
    if (containerId === undefined || cached.containerId === containerId) found.push(cached);
  }
  return found;
}

/** Reads the cached results of all networks. One that looks again and again reads only the files that have changed since. */
export class CachedResultReader {
  #known = new Map<string, { readonly identity: string; readonly result: CompleteCachedResult }>();

  /**
   * In the order of the file names. Files are skipped as by {@link cachedResults}.
   * @returns the same object for a file that has not changed
   */
  all(dir = RESULTS_DIR, nowMs = Date.now()): CompleteCachedResult[] {
    const earlier = this.#known;
    this.#known = new Map();
    // Attachments of one network nearly always have the same list: each text is decoded once.
    const lists = new Map<string, DecodedList>();
    return filesOf(dir, '').flatMap((file) => {
      const stat = statSync(file, { throwIfNoEntry: false });
      if (stat === undefined) return [];
      const identity = `${stat.mtimeMs} ${stat.ctimeMs} ${stat.size} ${stat.ino}`;
      const known = earlier.get(file);
      const result = known?.identity === identity ? known.result : readComplete(file, stat.mtimeMs, lists);
      if (result === undefined) return [];
      // A file that was just written may be written again within the resolution of its times.
      if (nowMs - stat.ctimeMs > SURE_AFTER_MS) this.#known.set(file, { identity, result });
      return [result];
    });
  }
}

const SURE_AFTER_MS = 1_000;

function readComplete(
  file: string,
  addedAtMs: number,
  lists: Map<string, DecodedList>,
): CompleteCachedResult | undefined {
  const parsed = parseCacheFile(file, lists);
  if (parsed === undefined) return undefined;
  const { cached, cniVersion, result } = parsed;
  return { ...cached, file, addedAtMs, cniVersion, result };
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
  return withRuntimeConfig(plugin, cached.capabilityArgs);
}

/** A plugin's configuration with `runtimeConfig`: the capability arguments that it declares. */
export function withRuntimeConfig(
  plugin: Readonly<Record<string, unknown>>,
  capabilityArgs: CachedResult['capabilityArgs'],
): Readonly<Record<string, unknown>> {
  const capabilities = (plugin['capabilities'] ?? {}) as Readonly<Record<string, unknown>>;
  const granted = Object.entries(capabilityArgs).filter(([name]) => capabilities[name] === true);
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
const pluginSchema = z.record(z.string(), z.unknown());
const listSchema = z.object({
  cniVersion: z.optional(z.string()),
  plugins: z.optional(z.array(pluginSchema)),
});

interface ParsedFile extends Pick<CompleteCachedResult, 'cniVersion' | 'result'> {
  readonly cached: CachedResult;
}

function parseCacheFile(file: string, lists = new Map<string, DecodedList>()): ParsedFile | undefined {
  try {
    const document = JSON.parse(readCacheFile(file) ?? '') as { readonly result?: unknown };
    const checked = z.safeParse(fileSchema, document);
    if (!checked.success) return undefined;
    const { containerId, ifName, networkName, netns, config, cniArgs, capabilityArgs, result } = checked.data;
    const list = lists.get(config) ?? decodeList(config);
    lists.set(config, list);
    const cached = {
      network: networkName,
      containerId,
      ifname: ifName,
      netns,
      addresses: result.ips.flatMap(({ address }) => (parseCidr(address) === undefined ? [] : [address])),
      hostInterfaces: result.interfaces.flatMap(({ name, sandbox = '' }) => (sandbox === '' ? [name] : [])),
      dataDirs: list.dataDirs,
      plugins: list.plugins,
      args: cniArgs,
      capabilityArgs,
    };
    return { cached, cniVersion: list.cniVersion, result: document.result };
  } catch {
    return undefined;
  }
}

interface DecodedList extends Pick<CachedResult, 'plugins' | 'dataDirs'> {
  readonly cniVersion: string | undefined;
}

/** A list, or the configuration of one plugin, as the cache holds it. What cannot be read has no plugins. */
function decodeList(base64: string): DecodedList {
  try {
    const config: unknown = JSON.parse(Buffer.from(base64, 'base64').toString('utf8'));
    const { cniVersion, plugins } = z.parse(listSchema, config);
    const configs = plugins ?? [z.parse(pluginSchema, config)];
    const dataDirs = [...new Set([config, ...configs])].flatMap((plugin) => dataDirOf(plugin) ?? []);
    return { cniVersion, plugins: configs, dataDirs };
  } catch {
    return { cniVersion: undefined, plugins: [], dataDirs: [] };
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
