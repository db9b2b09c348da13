import { readdirSync, statSync } from 'node:fs';
import { formatAddress, withoutPrefixLength } from '../net/address.ts';
import { USUAL_DATA_DIRS } from './attachments.ts';
import {
  CachedResultReader,
  withRuntimeConfig,
  type CachedResult,
  type CompleteCachedResult,
} from './cached-results.ts';
import { scanStore } from './lease-files.ts';
import { AddressHolders, nameOf, type HolderOf } from './holders.ts';
import { addressesOf, namespaceAt, type NamespaceIdentity } from './namespaces.ts';

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

export interface InventoryOptions {
  /**
   * Whether to search all network namespaces of the host for the addresses of attachments without a namespace of their own. That takes one
   * netlink dump per namespace, once, and only if there is such an attachment. Without the search they are `unknown`. Default true.
   */
  readonly searchNamespaces?: boolean;
  /** Whether to read leases. Without them, attachments without a cached result, and addresses that only a lease tells, are left out. Default true. */
  readonly readLeases?: boolean;
  /** For one that takes the inventory again and again. */
  readonly results?: CachedResultReader;
}

/** The inventory, and the question that it answers for other addresses: those of rules that name a container. */
export interface HostInventory {
  readonly entries: readonly InventoryEntry[];
  readonly holderOf: HolderOf;
}

/**
 * Every attachment of this host that a runtime's cached result or a lease of host-local names, by the time of its ADD, oldest first.
 *
 * - `running`: its network namespace exists, or another namespace has its address and is not known to be another container's.
 * - `gone`: it has no namespace, none is named after the container, and no namespace of the host has its address, all of which could be read.
 * - `unknown`: everything else.
 */
export function inventory(options: InventoryOptions = {}): InventoryEntry[] {
  return [...takeInventory(options).entries];
}

export function takeInventory({
  searchNamespaces = true,
  readLeases = true,
  results = new CachedResultReader(),
}: InventoryOptions = {}): HostInventory {
  const cached = results.all();
  const leases = readLeases ? leasesByAttachment(cached) : new Map<string, FoundLease[]>();
  const named = cached.map((result) => fromCache(result, takeLeases(leases, result)));
  const others = [...leases.values()].flat().map(fromLease);
  const facts = [...named, ...others];
  const nsfs = statSync('/proc/self/ns/net').dev;
  let holders: AddressHolders | undefined;
  const holderOf: HolderOf = (attachment) =>
    searchNamespaces ? (holders ??= new AddressHolders(facts, nsfs)).holderOf(attachment) : 'unknown';
  const entries = facts
    .map((one) => ({ ...one, ...stateOf(one, nsfs, holderOf, searchNamespaces) }))
    .sort((one, other) => one.addedAtMs - other.addedAtMs);
  return { entries, holderOf };
}

type Facts = Omit<InventoryEntry, 'state' | 'reason' | 'namespace'>;
type Judgement = Pick<InventoryEntry, 'state' | 'reason' | 'namespace'>;

function stateOf(facts: Facts, nsfs: number, holderOf: HolderOf, isSearched: boolean): Judgement {
  const { netns, containerId } = facts;
  const addresses = facts.addresses.map(withoutPrefixLength);
  for (const path of new Set([netns, nameOf(facts)])) {
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
  const leased = facts.leaseFiles.map((file) => file.replace(/.*\//, ''));
  const holder = holderOf({ containerId, addresses, leased });
  const unknown = (why: string): Judgement => ({
    state: 'unknown',
    reason: `${missing}${why}`,
    namespace: undefined,
  });
  if (holder === 'unknown')
    return unknown(`; the host's namespaces ${isSearched ? 'could not all be read' : 'were not searched'}`);
  if (holder !== 'none')
    return {
      state: 'running',
      reason: `network namespace ${holder.path} has address ${holder.address}`,
      namespace: undefined,
    };
  if (addresses.length === 0 && netns === '') return unknown(', and no address');
  return {
    state: 'gone',
    reason: addresses.length === 0 ? missing : `${missing}, and no namespace has its address`,
    namespace: undefined,
  };
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
  const reported = addresses.map(withoutPrefixLength);
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
