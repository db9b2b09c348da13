import { join } from 'node:path';
import { containsAddress, formatAddress, formatCidr, parseCidr, type IpAddress } from '../net/address.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import type { Invocation } from '../cni/plugin.ts';
import type { CniDns, CniIp, CniRoute } from '../cni/results.ts';
import { withRollback } from '../cni/undo.ts';
import { allocate, hasRoom, release } from './allocate.ts';
import { DEFAULT_DATA_DIR } from '../attachments/lease-files.ts';
import type { IpamConfig } from './config.ts';
import { describeSet, rangeOf, type RangeSet } from './ranges.ts';
import { requestedPerSet } from './requested.ts';
import { dnsFromResolvConf } from './resolv-conf.ts';
import { formatLease, ownerKey, readLease, scanStore, type LeaseText } from '../attachments/lease-files.ts';
import type { Owner } from './store.ts';
import { withStore } from './with-store.ts';

/** What the allocator needs of a call; any plugin's Invocation has it once `config` is what `configureIpam(raw)` gave. */
export type IpamCall<Config = IpamConfig> = Pick<
  Invocation<Config>,
  | 'containerId'
  | 'ifname'
  | 'environment'
  | 'network'
  | 'cniVersion'
  | 'config'
  | 'prevResult'
  | 'validAttachments'
  | 'warn'
>;

/** DEL and GC, which need only the store. */
type Removal = IpamCall<Partial<IpamConfig>>;

export interface IpamResult {
  ips: CniIp[];
  routes: CniRoute[];
  dns: CniDns;
  /** Takes back the leases that this call made, not those it found: for the caller's own rollback. */
  release: () => void;
}

/**
 * One address per range set for (containerId, ifname). The same call again gives the same addresses.
 * @throws CniError 7 for a bad pool, 999 when an address is not to be had; nothing stays reserved then
 */
export function ipamAdd(call: IpamCall): IpamResult {
  const { config, warn } = call;
  const sets = poolFor(call);
  const requested = requestedPerSet(call);
  const dns = dnsFromResolvConf(config.resolvConf);
  const made: IpAddress[] = [];
  const ips = withStore(storeOf(call), { create: true }, (store) =>
    withRollback(warn, (undo) =>
      sets.map((set, at) => {
        const { address, isNew } = allocate(store, { sets, at, requested: requested[at], owner: call, warn });
        if (isNew) undo.push(`lease of ${formatAddress(address)}`, () => release(store, call, address));
        if (isNew) made.push(address);
        return describeIp(set, address);
      }),
    ),
  );
  return { ips: ips ?? [], routes: [...config.routes], dns, release: () => releaseAll(call, made) };
}

/** Releases everything that (containerId, ifname) holds; what is gone, or never was, is fine, and so is a broken pool. */
export function ipamDel(call: Removal): void {
  withStore(storeOf(call), { create: false }, (store) => {
    const { exact, legacy } = store.leasesOf(call);
    for (const lease of exact.length > 0 ? exact : legacy) store.remove(lease);
  });
}

/**
 * Every address of prevResult that lies in this network's ranges must be leased to (containerId, ifname); with none in
 * there, any lease of theirs will do. Read-only, without the lock: a lease is never half written.
 * @throws CniError 999 naming the address and whose it is
 */
export function ipamCheck(call: IpamCall): void {
  const sets = poolFor(call);
  const addresses = addressesToCheck(call, sets);
  for (const address of addresses) {
    const lease = readLease(`${storeOf(call)}/${formatAddress(address)}`);
    if (!belongsTo(lease, call)) throw lost(call, formatAddress(address), ownerKey(lease));
  }
  if (addresses.length > 0) return;
  if (!scanStore(storeOf(call)).leases.some(({ lease }) => belongsTo(lease, call))) throw lost(call);
}

/** Releases what no valid attachment owns. `lock`, `last_reserved_ip.N` and files that are no lease stay. */
export function ipamGc(call: Removal): void {
  const { validAttachments, network } = call;
  if (validAttachments === undefined) {
    call.warn(`GC of ${network} without cni.dev/valid-attachments: nothing released`);
    return;
  }
  const valid = new Set<string>();
  for (const { containerID, ifname } of validAttachments) {
    valid.add(formatLease(containerID, ifname));
    valid.add(containerID);
  }
  withStore(storeOf(call), { create: false }, (store) => {
    for (const found of store.leases()) {
      const owner = ownerKey(found.lease);
      if (owner !== undefined && !valid.has(owner)) store.remove(found);
    }
  });
}

/**
 * @throws CniError 50 when the pool cannot give an address whatever is released: it holds nothing but gateways. Not while there are leases, exhausted or not: runtimes ask before a DEL as well, and DEL must get through.
 */
export function ipamStatus(call: IpamCall): void {
  const { rangeSets } = call.config;
  const roomless = rangeSets.find((set) => !hasRoom(rangeSets, set));
  if (roomless === undefined) return;
  if (scanStore(storeOf(call)).leases.some(({ lease }) => ownerKey(lease) !== undefined)) return;
  throw new CniError(
    CniCode.PluginNotAvailable,
    `network ${call.network} cannot give addresses: range set ${describeSet(roomless)} has no address to give`,
    { details: 'correct the ipam configuration; DEL works meanwhile' },
  );
}

function storeOf({ config, network }: Removal): string {
  return join(config.dataDir ?? DEFAULT_DATA_DIR, network);
}

/** The range sets, if the configuration has a sound pool and the version can carry its addresses. */
function poolFor({ config, cniVersion }: IpamCall): readonly RangeSet[] {
  const { rangeSets } = config;
  const families = rangeSets.map((set) => set[0]?.subnet.address.family);
  const isDouble = families.some((family, at) => families.indexOf(family) !== at);
  if (isDouble && (cniVersion === '0.1.0' || cniVersion === '0.2.0')) {
    throw new CniError(
      CniCode.InvalidNetworkConfig,
      `CNI version ${cniVersion} does not support more than 1 address per family`,
      { details: 'raise cniVersion to 0.3.0 or later, or configure one range set per family' },
    );
  }
  return rangeSets;
}

function describeIp(set: RangeSet, address: IpAddress): CniIp {
  const range = rangeOf(set, address);
  if (range === undefined)
    throw new Error(`unreachable: ${formatAddress(address)} is outside of its range set`);
  const { subnet, gateway } = range;
  return { address: formatCidr({ address, prefix: subnet.prefix }), gateway: formatAddress(gateway) };
}

function releaseAll(call: IpamCall, addresses: readonly IpAddress[]): void {
  if (addresses.length === 0) return;
  withStore(storeOf(call), { create: false }, (store) => {
    for (const address of addresses) release(store, call, address);
  });
}

/** Of prevResult: those that some range's subnet holds, unless they sit on another interface than the one checked. */
function addressesToCheck({ prevResult, ifname }: IpamCall, sets: readonly RangeSet[]): IpAddress[] {
  return (prevResult?.ips ?? []).flatMap((ip) => {
    const address = parseCidr(ip.address)?.address;
    const on = ip.interface === undefined ? undefined : prevResult?.interfaces[ip.interface]?.name;
    if (address === undefined || (on !== undefined && on !== ifname)) return [];
    return sets.some((set) => set.some(({ subnet }) => containsAddress(subnet, address))) ? [address] : [];
  });
}

function belongsTo(lease: LeaseText, { containerId, ifname }: Owner): boolean {
  if (lease.kind === 'legacy') return lease.containerId === containerId;
  return lease.kind === 'exact' && lease.containerId === containerId && lease.ifname === ifname;
}

function lost({ containerId, ifname, network }: IpamCall, address?: string, holder?: string): CniError {
  const what =
    address === undefined ? `it has no lease in network ${network}` : `${address} is not leased to it`;
  const details = holder === undefined ? undefined : `leased to ${holder.replace('\r\n', ', interface ')}`;
  return new CniError(
    CniCode.Internal,
    `host-local: Failed to find address added by container ${containerId} (${ifname}): ${what}`,
    details === undefined ? {} : { details },
  );
}
