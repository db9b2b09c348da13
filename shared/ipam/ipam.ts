import { join } from 'node:path';
import { KnownAttachments } from '../attachments/attachments.ts';
import {
  formatLease,
  ownerKey,
  readLease,
  scanStore,
  type FoundLease,
  type LeaseText,
} from '../attachments/lease-files.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import type { Invocation } from '../cni/plugin.ts';
import type { CniDns, CniIp, CniRoute } from '../cni/results.ts';
import { withRollback } from '../cni/undo.ts';
import { readRegularFile } from '../kernel/files.ts';
import { containsAddress, formatAddress, formatCidr, parseCidr, type IpAddress } from '../net/address.ts';
import { allocate, hasUsableAddress, release } from './allocate.ts';
import { requestedPerSet, type IpamConfig } from './config.ts';
import { describeSet, rangeOf, type RangeSet } from './ranges.ts';
import { withStore, type Owner, type Store } from './store.ts';

/** What the allocator needs of a call: any plugin's Invocation with the settings of `configureIpam(raw)` as `config`. */
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
  /** Releases the leases that this call created, not those it found: for the caller's own rollback. */
  release: () => void;
}

/**
 * Reserves one address per range set for (containerId, ifname). The same call again gives the same addresses.
 * @throws CniError 7 for an invalid configuration, 999 if an address is not available; nothing stays reserved then
 */
export function ipamAdd(call: IpamCall): IpamResult {
  const { config, warn } = call;
  const sets = poolFor(call);
  const requested = requestedPerSet(call);
  const dns = dnsFromResolvConf(config.resolvConf);
  const made: IpAddress[] = [];
  const ips = withStore(storeOf(call), { create: true, warn }, (store) =>
    withRollback(warn, (undo) =>
      sets.map((set, at) => {
        const { address, isNew } = allocate(store, {
          network: call.network,
          sets,
          at,
          requested: requested[at],
          owner: call,
          warn,
        });
        if (isNew) undo.push(`lease of ${formatAddress(address)}`, () => release(store, call, address));
        if (isNew) made.push(address);
        return describeIp(set, address);
      }),
    ),
  );
  return { ips: ips ?? [], routes: [...config.routes], dns, release: () => releaseAll(call, made) };
}

/**
 * Releases everything that (containerId, ifname) holds. No error if there is nothing to release, or if the configuration is one that ADD
 * would reject.
 *
 * If the configured store has no lease of it, or the configuration names no valid one, the data directory may have been changed since
 * ADD: the lease is looked for where the runtime's cached result says, and, without a valid data directory, in the usual places.
 */
export function ipamDel(call: Removal): void {
  const { config, network, containerId } = call;
  if (config.dataDir !== undefined && releaseIn(config.dataDir, call)) return;
  const known = new KnownAttachments({ network, containerId });
  const added = known.cachedResults(containerId).flatMap(({ dataDirs }) => dataDirs);
  const others = config.dataDir?.startsWith('/') === true ? added : known.dataDirs();
  for (const dataDir of new Set(others)) {
    if (dataDir !== config.dataDir) releaseIn(dataDir, call);
  }
}

/** @returns whether there was a lease */
function releaseIn(dataDir: string, call: Removal): boolean {
  const released = withStore(join(dataDir, call.network), { create: false, warn: call.warn }, (store) => {
    const find = (): FoundLease[] => {
      const { exact, legacy } = store.leasesOf(call);
      return exact.length > 0 ? exact : legacy;
    };
    let leases = find();
    // The index may lack a lease that another program made within the resolution of the file system's clock.
    if (leases.length === 0 && store.refresh()) leases = find();
    for (const lease of leases) store.remove(lease);
    return leases.length;
  });
  return released !== undefined && released > 0;
}

/**
 * Every address of prevResult in this network's subnets must be leased to (containerId, ifname); without such an address, any lease of
 * theirs will do. Read-only, without the lock: a lease is never half written.
 * @throws CniError 999 naming the address and its owner
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

/** Releases the leases of attachments that are not valid. `lock`, `last_reserved_ip.N` and files that are no lease stay. */
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
  for (const dataDir of call.config.dataDir === undefined ? usualDataDirs(call) : [call.config.dataDir]) {
    withStore(join(dataDir, network), { create: false, warn: call.warn }, (store) => {
      removeStale(store, valid);
    });
  }
}

function removeStale(store: Store, valid: ReadonlySet<string>): void {
  for (const found of store.leases()) {
    const owner = ownerKey(found.lease);
    if (owner !== undefined && !valid.has(owner)) store.remove(found);
  }
}

function usualDataDirs({ network }: Removal): readonly string[] {
  return new KnownAttachments({ network, thorough: true }).dataDirs();
}

/**
 * @throws CniError 50 if the network cannot give an address whatever is released, because its ranges contain only gateways. Not while there
 *   are leases, even if the range is exhausted: runtimes ask before DEL as well, and DEL must not be refused.
 */
export function ipamStatus(call: IpamCall): void {
  const { rangeSets } = call.config;
  const unusable = rangeSets.find((set) => !hasUsableAddress(rangeSets, set));
  if (unusable === undefined) return;
  if (scanStore(storeOf(call)).leases.some(({ lease }) => ownerKey(lease) !== undefined)) return;
  throw new CniError(
    CniCode.PluginNotAvailable,
    `network ${call.network} cannot give addresses: range set ${describeSet(unusable)} has no address to give`,
    { details: 'widen rangeStart and rangeEnd; DEL works meanwhile' },
  );
}

function storeOf({ config, network }: IpamCall): string {
  return join(config.dataDir, network);
}

/** The range sets, if the configuration is valid and the version can express its addresses. */
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
  withStore(storeOf(call), { create: false, warn: call.warn }, (store) => {
    for (const address of addresses) release(store, call, address);
  });
}

/** The addresses of prevResult that are in the subnet of a range, and not on another interface than the one checked. */
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

/**
 * The dns part of a result from a file in the format of resolv.conf(5), as the reference reads it: `nameserver`, `search` and `options` add
 * up, the last `domain` counts; lines of one word and comments are skipped.
 * @throws CniError 5 if it cannot be read
 */
export function dnsFromResolvConf(file: string | undefined): CniDns {
  if (file === undefined) return {};
  const details = '"resolvConf" of the ipam configuration must name a readable file';
  const text = readResolvConf(file, details);
  if (text !== undefined) return parseResolvConf(text);
  throw new CniError(CniCode.IoFailure, `open ${file}: no such file or directory`, { details });
}

function readResolvConf(file: string, details: string): string | undefined {
  try {
    return readRegularFile(file);
  } catch (thrown) {
    if (!(thrown instanceof CniError)) throw thrown;
    throw new CniError(CniCode.IoFailure, thrown.message, { details, cause: thrown });
  }
}

export function parseResolvConf(text: string): CniDns {
  const dns: CniDns = {};
  for (const line of text.split('\n')) {
    const [keyword = '', ...values] = line.trim().split(/\s+/);
    const [first] = values;
    if (first === undefined || /^[#;]/.test(keyword)) continue;
    if (keyword === 'nameserver') dns.nameservers = [...(dns.nameservers ?? []), first];
    if (keyword === 'domain') dns.domain = first;
    if (keyword === 'search') dns.search = [...(dns.search ?? []), ...values];
    if (keyword === 'options') dns.options = [...(dns.options ?? []), ...values];
  }
  return dns;
}
