import { readdirSync, statSync } from 'node:fs';
import { formatAddress } from '../net/address.ts';
import { namespaceNamedAfter, USUAL_DATA_DIRS } from './attachments.ts';
import {
  allCachedResults,
  withRuntimeConfig,
  type CachedResult,
  type CompleteCachedResult,
} from './cached-results.ts';
import { scanStore } from './lease-files.ts';
import { addressesInUse, addressesOf, type AddressesInUse } from './namespaces.ts';

/** One attachment of this host: one interface of one container on one network. */
export interface InventoryEntry {
  readonly network: string;
  readonly containerId: string;
  /** Undefined where only a lease of an old release names the container, which does not tell the interface. */
  readonly ifname: string | undefined;
  /** Path of the network namespace as the runtime gave it; '' if it is not known. */
  readonly netns: string;
  /** Of the network namespace at `netns`, if there is one. */
  readonly namespace: NamespaceIdentity | undefined;
  /** With prefix length where a cached result tells it; those of leases without. */
  readonly addresses: readonly string[];
  /** Interfaces of the result outside of the container. */
  readonly hostInterfaces: readonly string[];
  /** The plugins' configurations in the order of the list, with `runtimeConfig`; empty without a cached result. */
  readonly plugins: readonly Readonly<Record<string, unknown>>[];
  /** Of the list, undefined without a cached result. */
  readonly cniVersion: string | undefined;
  /** The result of the last plugin as the runtime cached it, undefined without one. */
  readonly prevResult: unknown;
  /** CNI_ARGS. */
  readonly args: CachedResult['args'];
  readonly capabilityArgs: CachedResult['capabilityArgs'];
  /** When the last ADD ended, in milliseconds since 1970; without a cached result, when the lease was written. */
  readonly addedAtMs: number;
  /** `gone` only if that is certain (see {@link inventory}). */
  readonly state: 'running' | 'gone' | 'unknown';
  /** Why, as a phrase: `network namespace /var/run/netns/x exists`. */
  readonly reason: string;
  /** The files that name the attachment: of the runtime's cache, and host-local's leases. */
  readonly cacheFile: string | undefined;
  readonly leaseFiles: readonly string[];
}

export interface NamespaceIdentity {
  readonly dev: number;
  readonly ino: number;
}

export interface InventoryOptions {
  /**
   * Whether to search all network namespaces of the host for the addresses of attachments without a namespace of their own. That takes one
   * netlink dump per namespace, once, and only if there is such an attachment. Without the search they are `unknown`. Default true.
   */
  readonly searchNamespaces?: boolean;
}

/**
 * Every attachment of this host that a runtime's cached result or a lease of host-local names, by the time of its ADD, oldest first.
 *
 * - `running`: its network namespace exists, or another namespace has its address.
 * - `gone`: it has no namespace, none is named after the container, and no namespace of the host has its address, all of which could be read.
 * - `unknown`: everything else.
 */
export function inventory({ searchNamespaces = true }: InventoryOptions = {}): InventoryEntry[] {
  const cached = allCachedResults();
  const leases = leasesByAttachment(cached);
  const named = cached.map((result) => fromCache(result, takeLeases(leases, result)));
  const others = [...leases.values()].flat().map(fromLease);
  const nsfs = statSync('/proc/self/ns/net').dev;
  let inUse: AddressesInUse | undefined;
  const search = (): AddressesInUse | undefined =>
    searchNamespaces ? (inUse ??= addressesInUse()) : undefined;
  return [...named, ...others]
    .map((facts) => ({ ...facts, ...stateOf(facts, nsfs, search) }))
    .sort((one, other) => one.addedAtMs - other.addedAtMs);
}

type Facts = Omit<InventoryEntry, 'state' | 'reason' | 'namespace'>;
type Judgement = Pick<InventoryEntry, 'state' | 'reason' | 'namespace'>;

function stateOf(facts: Facts, nsfs: number, search: () => AddressesInUse | undefined): Judgement {
  const { netns, containerId } = facts;
  const addresses = facts.addresses.map((text) => text.replace(/\/\d+$/, ''));
  const byName = /^[\w.-]+$/.test(containerId) ? namespaceNamedAfter(containerId) : undefined;
  for (const path of new Set([netns, byName])) {
    if (path === undefined || path === '') continue;
    const namespace = namespaceAt(path, nsfs);
    if (namespace === 'unreadable')
      return { state: 'unknown', reason: `cannot look at network namespace ${path}`, namespace: undefined };
    if (namespace === undefined) continue;
    // The number of a process that ended may be another process's by now.
    if (path.startsWith('/proc/') && !hasAnAddress(path, addresses)) continue;
    const own = path === netns ? namespace : undefined;
    return { state: 'running', reason: `network namespace ${path} exists`, namespace: own };
  }
  const missing =
    netns === '' ? 'no network namespace is known' : `network namespace ${netns} does not exist`;
  const found = search();
  const holder = found && addresses.map((address) => [address, found.byAddress.get(address)] as const);
  const [address, path] = holder?.find(([, where]) => where !== undefined) ?? [];
  if (path !== undefined)
    return {
      state: 'running',
      reason: `network namespace ${path} has address ${address}`,
      namespace: undefined,
    };
  if (found === undefined || !found.isComplete) {
    const why = found === undefined ? 'were not searched' : 'could not all be read';
    return { state: 'unknown', reason: `${missing}; the host's namespaces ${why}`, namespace: undefined };
  }
  if (addresses.length === 0 && netns === '')
    return { state: 'unknown', reason: `${missing}, and no address`, namespace: undefined };
  return {
    state: 'gone',
    reason: addresses.length === 0 ? missing : `${missing}, and no namespace has its address`,
    namespace: undefined,
  };
}

/** Identity of the namespace at a path; undefined if there is none. One system call: nsfs is one file system of its own on a host. */
function namespaceAt(path: string, nsfs: number): NamespaceIdentity | undefined | 'unreadable' {
  try {
    const found = statSync(path, { throwIfNoEntry: false });
    return found?.dev === nsfs ? { dev: found.dev, ino: found.ino } : undefined;
  } catch {
    return 'unreadable';
  }
}

/** @param addresses without prefix length */
function hasAnAddress(path: string, addresses: readonly string[]): boolean {
  const present = addressesOf(path);
  return present === undefined || addresses.some((address) => present.includes(address));
}

interface FoundLease {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string | undefined;
  readonly address: string;
  readonly file: string;
}

/** All leases of the host's stores, by network and container. */
function leasesByAttachment(cached: readonly CompleteCachedResult[]): Map<string, FoundLease[]> {
  const found = storesOf(cached).flatMap(({ network, store }) =>
    scanStore(store).leases.flatMap(({ path, address, lease }): FoundLease[] => {
      if (address === undefined || !('containerId' in lease)) return [];
      const ifname = lease.kind === 'exact' ? lease.ifname : undefined;
      return [
        { network, containerId: lease.containerId, ifname, address: formatAddress(address), file: path },
      ];
    }),
  );
  return Map.groupBy(found, keyOf);
}

/** Each folder once, although /var/run is a link to /run. */
function storesOf(cached: readonly CompleteCachedResult[]): { network: string; store: string }[] {
  const dataDirs = new Set([...cached.flatMap((result) => result.dataDirs), ...USUAL_DATA_DIRS]);
  const byIdentity = new Map<string, { network: string; store: string }>();
  for (const dataDir of dataDirs) {
    for (const network of foldersIn(dataDir)) {
      const store = `${dataDir}/${network}`;
      const stat = statSync(store, { bigint: true, throwIfNoEntry: false });
      const identity = `${stat?.dev}:${stat?.ino}`;
      if (stat !== undefined && !byIdentity.has(identity)) byIdentity.set(identity, { network, store });
    }
  }
  return [...byIdentity.values()];
}

function foldersIn(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? [entry.name] : [],
    );
  } catch {
    return [];
  }
}

/** The leases of one attachment, removed from the map; one without an interface belongs to each interface. */
function takeLeases(leases: Map<string, FoundLease[]>, result: CompleteCachedResult): FoundLease[] {
  const all = leases.get(keyOf(result)) ?? [];
  const own = all.filter(({ ifname }) => ifname === undefined || ifname === result.ifname);
  const rest = all.filter((lease) => !own.includes(lease));
  if (own.length > 0) leases.set(keyOf(result), rest);
  return own;
}

function keyOf({ network, containerId }: Pick<FoundLease, 'network' | 'containerId'>): string {
  return `${network}/${containerId}`;
}

function fromCache(result: CompleteCachedResult, leases: readonly FoundLease[]): Facts {
  const { plugins, capabilityArgs, addresses } = result;
  const reported = addresses.map((text) => text.replace(/\/\d+$/, ''));
  const leased = leases.map(({ address }) => address).filter((address) => !reported.includes(address));
  return {
    network: result.network,
    containerId: result.containerId,
    ifname: result.ifname,
    netns: result.netns,
    addresses: [...addresses, ...leased],
    hostInterfaces: result.hostInterfaces,
    plugins: plugins.map((plugin) => withRuntimeConfig(plugin, capabilityArgs)),
    cniVersion: result.cniVersion,
    prevResult: result.result,
    args: result.args,
    capabilityArgs,
    addedAtMs: result.addedAtMs,
    cacheFile: result.file,
    leaseFiles: leases.map(({ file }) => file),
  };
}

/** A lease whose container has no cached result: the runtime caches none (containerd), or its ADD did not end. */
function fromLease({ network, containerId, ifname, address, file }: FoundLease): Facts {
  return {
    network,
    containerId,
    ifname,
    netns: '',
    addresses: [address],
    hostInterfaces: [],
    plugins: [],
    cniVersion: undefined,
    prevResult: undefined,
    args: [],
    capabilityArgs: {},
    addedAtMs: statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? Date.now(),
    cacheFile: undefined,
    leaseFiles: [file],
  };
}
