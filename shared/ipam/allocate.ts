import { ownerKey, type FoundLease } from '../attachments/lease-files.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import {
  containsAddress,
  firstAddress,
  formatAddress,
  lastAddress,
  sameAddress,
  type IpAddress,
} from '../net/address.ts';
import { describeSet, nextFree, rangeOf, type RangeSet } from './ranges.ts';
import { judge } from './reclaim.ts';
import type { Owner, Store } from './store.ts';

export interface Request {
  readonly network: string;
  readonly sets: readonly RangeSet[];
  /** Which of the sets; also the number in `last_reserved_ip.N`. */
  readonly at: number;
  /** Undefined if any address of the set will do. */
  readonly requested: IpAddress | undefined;
  readonly owner: Owner;
  readonly warn: (line: string) => void;
}

export interface Allocation {
  readonly address: IpAddress;
  /** False if the owner held it before. */
  readonly isNew: boolean;
}

/**
 * One address of one range set for the owner: the one it holds already, else the requested one, else the next free one.
 * @throws CniError 999 naming the set and the reason
 */
export function allocate(store: Store, request: Request): Allocation {
  const { requested } = request;
  const address = held(store, request);
  if (address !== undefined) return { address, isNew: false };
  const made = requested === undefined ? takeNext(store, request) : takeRequested(store, request, requested);
  store.setLastReserved(request.at, made);
  return { address: made, isNew: true };
}

/** Removes the owner's leases of this address, if they are still the owner's. */
export function release(store: Store, owner: Owner, address: IpAddress): void {
  for (const lease of store.leasesOf(owner).exact) {
    if (lease.address !== undefined && sameAddress(lease.address, address)) store.remove(lease);
  }
}

/**
 * Never handed out: every gateway of the network, and the first and last address of an IPv4 subnet or the first of an
 * IPv6 subnet even where rangeStart and rangeEnd include them (network, broadcast, subnet-router anycast).
 */
export function isExcluded(sets: readonly RangeSet[], address: IpAddress): boolean {
  return sets.some((set) =>
    set.some(({ subnet, gateway }) => {
      if (sameAddress(gateway, address)) return true;
      if (!containsAddress(subnet, address)) return false;
      const isLast = address.family === 'ipv4' && sameAddress(lastAddress(subnet), address);
      return isLast || sameAddress(firstAddress(subnet), address);
    }),
  );
}

/** Whether the set has an address that can be given out while no lease exists. */
export function hasUsableAddress(sets: readonly RangeSet[], set: RangeSet): boolean {
  return (
    nextFree(
      set,
      undefined,
      ({ first }) => first,
      (address) => isExcluded(sets, address),
    ) !== undefined
  );
}

/**
 * The same attachment gets the same address again: Nomad repeats an ADD that failed further down the list, and an ADD whose CHECK failed,
 * both without DEL.
 */
function held(store: Store, request: Request): IpAddress | undefined {
  const { sets, at, requested, owner } = request;
  const set = setOf(request);
  const isUsable = ({ address }: FoundLease): boolean =>
    address !== undefined && rangeOf(set, address) !== undefined && !isExcluded(sets, address);
  const { exact, legacy } = store.leasesOf(owner);
  const usable = [...exact.filter(isUsable), ...legacy.filter(isUsable)];
  const lease = requested === undefined ? usable[0] : usable.find(({ address }) => same(address, requested));
  if (lease?.address !== undefined) {
    if (lease.lease.kind === 'legacy') store.adopt(lease, owner);
    else store.renew(lease);
    return lease.address;
  }
  const other = usable[0]?.address;
  if (requested === undefined || other === undefined) return undefined;
  throw failure(
    at,
    `requested IP address ${formatAddress(requested)}, but ${formatAddress(other)} has been allocated to ${owner.containerId} (${owner.ifname}), duplicate allocation is not allowed`,
    'run DEL for this container and interface first, or request the address it has',
  );
}

function takeNext(store: Store, request: Request): IpAddress {
  const { sets, at, owner } = request;
  const set = setOf(request);
  const inSet = (candidate: IpAddress): boolean => rangeOf(set, candidate) !== undefined;
  for (;;) {
    const address = nextFree(
      set,
      store.lastReserved(at),
      (interval) => store.firstFree(interval),
      (candidate) => isExcluded(sets, candidate),
    );
    if (address === undefined) {
      // The index may be wrong; the lease files are not.
      if (store.refresh()) continue;
      const { reclaimed, ...left } = reclaim(store, request, inSet);
      if (reclaimed > 0) continue;
      throw exhausted(store, request, left);
    }
    if (store.create(address, owner)) return address;
    // The file exists although the index says that the address is free.
    store.refresh();
  }
}

function takeRequested(store: Store, request: Request, address: IpAddress): IpAddress {
  const { sets, at, owner } = request;
  const text = formatAddress(address);
  if (sets.some((set) => set.some(({ gateway }) => sameAddress(gateway, address)))) {
    throw failure(at, `requested ip ${text} is subnet's gateway`);
  }
  if (isExcluded(sets, address)) {
    throw failure(
      at,
      `requested ip ${text} is the first or last address of its subnet, which no interface can have`,
    );
  }
  if (store.create(address, owner)) return address;
  const isRequested = (candidate: IpAddress): boolean => sameAddress(candidate, address);
  if (reclaim(store, request, isRequested).reclaimed > 0 && store.create(address, owner)) return address;
  const holder = leasesFor(store, isRequested)[0];
  const key = holder === undefined ? undefined : ownerKey(holder.lease);
  throw failure(
    at,
    `requested IP address ${text} is not available in range set ${describeSet(setOf(request))}`,
    key === undefined
      ? undefined
      : `it is leased to ${key.replace('\r\n', ' (')}${key.includes('\r\n') ? ')' : ''}`,
  );
}

/** How many leases of containers that are gone have to stay for now. */
type Left = Record<'stale' | 'young', number>;

/** Removes leases that no running container can be using. @returns how many, and how many others are of containers that are gone */
function reclaim(
  store: Store,
  { network, warn }: Request,
  concerns: (address: IpAddress) => boolean,
): Left & { reclaimed: number } {
  const { reclaimable, stale, young } = judge(network, leasesFor(store, concerns));
  for (const { found, why } of reclaimable) {
    warn(`reclaimed ${found.path}: ${why}`);
    store.remove(found);
  }
  return { reclaimed: reclaimable.length, stale: stale.length, young: young.length };
}

function exhausted(store: Store, { sets, at }: Request, { stale, young }: Left): CniError {
  const set = sets[at] ?? [];
  const problem = `no IP addresses available in range set: ${describeSet(set)}`;
  if (!hasUsableAddress(sets, set)) {
    const only = 'it has only gateways and first or last addresses of subnets, which no container can have';
    return failure(at, problem, `${only}; widen rangeStart and rangeEnd`);
  }
  const leases = leasesFor(store, (address) => rangeOf(set, address) !== undefined).length;
  const whose = [
    ...(stale > 0 ? [`${counted(stale)} of them to containers that no longer exist`] : []),
    ...(young > 0 ? [`${counted(young)} of them to containers whose ADD failed or is still running`] : []),
  ];
  const remedies = [
    ...(stale > 0 ? ['run "weft gc"'] : []),
    ...(young > 0 ? ['retry in a minute, when ADD frees those of failed ones'] : []),
    'widen the range',
  ];
  return failure(
    at,
    problem,
    whose.length === 0
      ? `${counted(leases)} leased, all to containers that may be running; widen the range`
      : `${counted(leases)} leased, ${whose.join(', ')}; ${remedies.join(', or ')}`,
  );
}

/** `4,093`; without Intl, which takes long to load. */
function counted(count: number): string {
  return String(count).replace(/\B(?=(\d{3})+$)/g, ',');
}

function leasesFor(store: Store, concerns: (address: IpAddress) => boolean): FoundLease[] {
  return store.leases().filter(({ address }) => address !== undefined && concerns(address));
}

function setOf({ sets, at }: Request): RangeSet {
  return sets[at] ?? [];
}

function same(address: IpAddress | undefined, other: IpAddress): boolean {
  return address !== undefined && sameAddress(address, other);
}

function failure(at: number, problem: string, details?: string): CniError {
  return new CniError(
    CniCode.Internal,
    `failed to allocate for range ${at}: ${problem}`,
    details === undefined ? {} : { details },
  );
}
