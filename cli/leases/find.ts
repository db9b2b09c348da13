import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DEFAULT_CACHE_DIR, readCachedAttachment, readCachedResult } from '../../conflist/result-cache.ts';
import { compareAddresses, formatAddress, parseAddress } from '../../shared/net/address.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { addressesInUse } from '../../shared/attachments/namespaces.ts';
import { scanStore, type FoundLease } from '../../shared/attachments/lease-files.ts';
import { isNetworkNamespace } from '../../shared/kernel/namespace.ts';
import { linkByName } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';

/** host-local's own default, and the folder of Nomad's networks. */
export { USUAL_DATA_DIRS as DATA_DIRS } from '../../shared/attachments/attachments.ts';

export interface LeaseState {
  readonly network: string;
  readonly address: string;
  /** Undefined when the file names none. */
  readonly container: string | undefined;
  /** Undefined for files of old releases, which name only the container. */
  readonly ifname: string | undefined;
  /** When it was given, or asked for again; ISO 8601. */
  readonly leasedAt: string;
  readonly ageSeconds: number;
  readonly state: 'live' | 'no address' | 'gone' | 'not a lease';
  /** Path of the network namespace that has the address, or that the container had when it was added. */
  readonly namespace: string | undefined;
  /** Interfaces on the host that the runtime's cached result names, and whether they are still there. */
  readonly hostInterfaces: readonly { name: string; exists: boolean }[];
  readonly file: string;
}

/** All leases of all stores, by network and address. Read-only and without locks: a lease is never half written. */
export function findLeases(dataDirs: readonly string[], network?: string): LeaseState[] {
  const stores = dataDirs.flatMap(storesIn).filter(({ name }) => network === undefined || name === network);
  const found = stores.flatMap(({ name, path }) => leasesOf(path).map((lease) => ({ name, ...lease })));
  if (found.length === 0) return [];
  const inUse = addressesInUse().byAddress;
  using rtnetlink = Rtnetlink.open();
  return found.map((lease) => describe(lease, inUse, (link) => linkByName(rtnetlink, link) !== undefined));
}

interface Store {
  readonly name: string;
  readonly path: string;
}

/** Folders that hold a lease or host-local's lock. */
function storesIn(dataDir: string): Store[] {
  const isStore = (path: string): boolean =>
    lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true &&
    readdirSync(path).some((name) => name === 'lock' || parseAddress(name) !== undefined);
  if (lstatSync(dataDir, { throwIfNoEntry: false }) === undefined) return [];
  return readdirSync(dataDir)
    .sort()
    .map((name) => ({ name, path: join(dataDir, name) }))
    .filter(({ path }) => isStore(path));
}

function leasesOf(store: string): FoundLease[] {
  const leases = scanStore(store).leases.filter(({ address, isFile }) => address !== undefined && isFile);
  return leases.sort((a, b) =>
    a.address === undefined || b.address === undefined ? 0 : compareAddresses(a.address, b.address),
  );
}

function describe(
  { name, path, address, lease }: FoundLease & { name: string },
  inUse: ReadonlyMap<string, string>,
  linkExists: (link: string) => boolean,
): LeaseState {
  const text = address === undefined ? '' : formatAddress(address);
  const container = 'containerId' in lease ? lease.containerId : undefined;
  const ifname = lease.kind === 'exact' ? lease.ifname : undefined;
  const key =
    container === undefined || ifname === undefined ? undefined : { containerId: container, ifname };
  const last = container === undefined ? undefined : namespaceOf(name, container, key);
  const mtime = lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
  return {
    network: name,
    address: text,
    container,
    ifname,
    leasedAt: new Date(mtime).toISOString(),
    ageSeconds: Math.max(0, Math.round((Date.now() - mtime) / 1000)),
    state: container === undefined ? 'not a lease' : stateOf(inUse.has(text), last),
    namespace: inUse.get(text) ?? last,
    hostInterfaces: hostInterfaces(name, key).map((link) => ({ name: link, exists: linkExists(link) })),
    file: path,
  };
}

function stateOf(isInUse: boolean, namespace: string | undefined): LeaseState['state'] {
  if (isInUse) return 'live';
  return namespace !== undefined && isNetworkNamespace(namespace) ? 'no address' : 'gone';
}

/** As the runtime's cache says, else one of the container's name (Nomad's allocations have theirs there). */
function namespaceOf(network: string, container: string, key: Key | undefined): string | undefined {
  const cached =
    key === undefined ? '' : (readCachedAttachment(DEFAULT_CACHE_DIR, network, key)?.netns ?? '');
  if (cached !== '') return cached;
  const named = `/var/run/netns/${container}`;
  return isNetworkNamespace(named) ? named : undefined;
}

type Key = { containerId: string; ifname: string };

function hostInterfaces(network: string, key: Key | undefined): string[] {
  const interfaces = key === undefined ? [] : (cachedResult(network, key)?.interfaces ?? []);
  return interfaces.filter(({ sandbox }) => sandbox === undefined || sandbox === '').map(({ name }) => name);
}

/** A damaged cache is the runtime's trouble, and no reason to list nothing. */
function cachedResult(network: string, key: Key): CniResult | undefined {
  try {
    return readCachedResult(DEFAULT_CACHE_DIR, network, key);
  } catch {
    return undefined;
  }
}
