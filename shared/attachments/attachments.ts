import { lstatSync, readdirSync, statSync } from 'node:fs';
import { canonicalAddress, formatAddress } from '../net/address.ts';
import { isNetworkNamespace } from '../kernel/namespace.ts';
import { cachedResults, dataDirOf, type CachedResult } from './cached-results.ts';
import {
  DEFAULT_DATA_DIR,
  readLease,
  readStoreFile,
  scanStore,
  type FoundLease,
  type LeaseText,
} from './lease-files.ts';
import { addressesInUse, type AddressesInUse } from './namespaces.ts';

/** An address that host-local, this suite's or the reference's, reserves for an attachment. */
export interface Lease {
  readonly network: string;
  readonly containerId: string;
  /** Undefined in lease files of old releases, which count for every interface of the container. */
  readonly ifname: string | undefined;
  /** Canonical, without prefix length. */
  readonly address: string;
}

/** What a rule, a lease or a port mapping says about its owner. */
export interface KnownAttachment {
  readonly containerId?: string | undefined;
  readonly network?: string | undefined;
  readonly ifname?: string | undefined;
  /** Without prefix length. */
  readonly address?: string | undefined;
}

/** What is known of the caller, to find the data directories of host-local. */
export interface Origin {
  readonly network: string;
  /** Reads this container's cached results first: they hold the configuration it was added with. */
  readonly containerId?: string;
  /** A plugin's configuration (`raw`), if it may have an `ipam` section. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** For GC and listings, which ask about many containers: reads the cached results of all of them, once. */
  readonly thorough?: boolean;
}

/** The data directory of Nomad's own networks. */
const NOMAD_DATA_DIR = '/var/run/cni';
/** Folders below which the networks' stores are, wherever nothing says otherwise. */
export const USUAL_DATA_DIRS: readonly string[] = [DEFAULT_DATA_DIR, NOMAD_DATA_DIR];

/**
 * What this host knows about running containers: leases of host-local, results cached by the runtime, network namespaces.
 * Reads when it is asked, without locks, and enters the namespaces at most once. One object for one call of a plugin: it must
 * not outlive it.
 *
 *     using it in a chained plugin (which does not get the network's ipam section):
 *     const known = new KnownAttachments({ network, containerId });
 *     known.leasesOfAddress('172.26.64.5');              // who has it now
 *     known.mayBeAlive({ network, containerId, address })  // false only if the container is certainly gone
 */
export class KnownAttachments {
  readonly #origin: Origin;
  #dataDirs: readonly string[] | undefined;
  #inUse: AddressesInUse | undefined;
  /** All cached results of a network, by container id; for callers that ask for many containers. */
  readonly #cached = new Map<string, Map<string, CachedResult[]>>();

  constructor(origin: Origin) {
    this.#origin = origin;
  }

  /**
   * Data directories that can hold leases of the network, each directory once: `ipam.dataDir` of the configuration and of the
   * network's cached results, then host-local's default and Nomad's. Missing ones are left out.
   */
  dataDirs(): readonly string[] {
    return (this.#dataDirs ??= findDataDirs(this.#origin));
  }

  /** Who holds this address, in every network of every data directory. Reads one file per network. */
  leasesOfAddress(address: string): Lease[] {
    const text = canonicalAddress(address);
    if (text === undefined) return [];
    return this.dataDirs().flatMap((dataDir) =>
      namesIn(dataDir).flatMap((network) =>
        leaseOf(network, text, readLease(`${dataDir}/${network}/${text}`)),
      ),
    );
  }

  /** Every lease of the network. Reads all files of its stores. */
  leases(): Lease[] {
    const { network } = this.#origin;
    return this.#stores()
      .flatMap((store) => scanStore(store).leases)
      .flatMap((found) => leaseOfFile(network, found));
  }

  /** The address that each range set of the network gave out last (`last_reserved_ip.N`). */
  lastReserved(): string[] {
    return this.#stores().flatMap((store) =>
      namesIn(store)
        .filter((name) => name.startsWith('last_reserved_ip.'))
        .flatMap((name) => canonicalAddress((readStoreFile(`${store}/${name}`, 100) || '').trim()) ?? []),
    );
  }

  /** Cached results of a container on the network, by default on the caller's. */
  cachedResults(containerId: string, network = this.#origin.network): CachedResult[] {
    if (this.#origin.thorough !== true) return cachedResults(network, containerId);
    let byContainer = this.#cached.get(network);
    if (byContainer === undefined) {
      byContainer = Map.groupBy(cachedResults(network), (result) => result.containerId);
      this.#cached.set(network, byContainer);
    }
    return byContainer.get(containerId) ?? [];
  }

  /** The addresses of all network namespaces. Expensive at the first call: one netlink dump per namespace. */
  addressesInUse(): AddressesInUse {
    return (this.#inUse ??= addressesInUse());
  }

  /**
   * Whether the container may be running. False only if all of this holds: no network namespace has its address, and every
   * namespace could be looked at; the namespaces of its cached results are gone; none is named after the container.
   */
  mayBeAlive({ containerId, network, ifname, address }: KnownAttachment): boolean {
    if (containerId !== undefined && this.#namespacesOf(containerId, network, ifname).some(isNamespace))
      return true;
    const { byAddress, isComplete } = this.addressesInUse();
    return !isComplete || (address !== undefined && byAddress.has(canonicalAddress(address) ?? address));
  }

  #namespacesOf(containerId: string, network: string | undefined, ifname: string | undefined): string[] {
    const cached = network === undefined ? [] : this.cachedResults(containerId, network);
    const paths = cached
      .filter((result) => ifname === undefined || result.ifname === ifname)
      .map(({ netns }) => netns)
      .filter((path) => path !== '');
    return /^[\w.-]+$/.test(containerId) ? [...paths, namespaceNamedAfter(containerId)] : paths;
  }

  #stores(): string[] {
    return this.dataDirs().map((dataDir) => `${dataDir}/${this.#origin.network}`);
  }
}

/** Where Nomad and `ip netns` mount the namespace of a container, if it bears the container's name. */
export function namespaceNamedAfter(containerId: string): string {
  return `/var/run/netns/${containerId}`;
}

/** True also if that is unknown. */
function isNamespace(path: string): boolean {
  try {
    return isNetworkNamespace(path);
  } catch {
    return true;
  }
}

/** Attachments of one network are nearly always added with one list: a few cached results tell its data directory. */
const FEW = 8;

function findDataDirs({ network, containerId, config, thorough }: Origin): string[] {
  const own = containerId === undefined ? [] : cachedResults(network, containerId);
  const others = cachedResults(network, undefined, { most: thorough === true ? Infinity : FEW });
  const configured = dataDirOf(config);
  const candidates = [
    ...(configured === undefined ? [] : [configured]),
    ...[...own, ...others].flatMap(({ dataDirs }) => dataDirs),
    ...USUAL_DATA_DIRS,
  ];
  const byIdentity = new Map<string, string>();
  for (const dataDir of new Set(candidates)) {
    const stat = statSync(dataDir, { bigint: true, throwIfNoEntry: false });
    if (stat?.isDirectory() !== true) continue;
    const identity = `${stat.dev}:${stat.ino}`;
    if (!byIdentity.has(identity)) byIdentity.set(identity, dataDir);
  }
  return [...byIdentity.values()];
}

function leaseOfFile(network: string, { address, lease }: FoundLease): Lease[] {
  return address === undefined ? [] : leaseOf(network, formatAddress(address), lease);
}

function leaseOf(network: string, address: string, lease: LeaseText): Lease[] {
  if (!('containerId' in lease)) return [];
  const { containerId } = lease;
  return [{ network, containerId, ifname: lease.kind === 'exact' ? lease.ifname : undefined, address }];
}

/** The names in a folder; none if it is missing or no folder. */
function namesIn(folder: string): string[] {
  if (lstatSync(folder, { throwIfNoEntry: false }) === undefined) return [];
  try {
    return readdirSync(folder);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw thrown;
  }
}
