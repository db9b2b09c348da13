import {
  containsAddress,
  firstAddress,
  formatAddress,
  lastAddress,
  sameAddress,
  type IpAddress,
} from '../net/address.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import { reclaimable } from './dead.ts';
import { describeSet, rangeOf, type RangeSet } from './ranges.ts';
import { nextFree } from './ring.ts';
import { ownerKey, type FoundLease } from '../attachments/lease-files.ts';
import type { LeaseStore, Owner } from './store.ts';

export interface Request {
  readonly sets: readonly RangeSet[];
  /** Which of the sets; also the number in `last_reserved_ip.N`. */
  readonly at: number;
  /** Undefined when any address of the set will do. */
  readonly requested: IpAddress | undefined;
  readonly owner: Owner;
  readonly warn: (line: string) => void;
}

export interface Allocation {
  readonly address: IpAddress;
  /** False when the owner held it before. */
  readonly isNew: boolean;
}

/**
 * One address of one range set for the owner: the one it holds already, else the requested one, else the next free one.
 * @throws CniError 999 naming the set and what stands in the way
 */
export function allocate(store: LeaseStore, request: Request): Allocation {
  const { requested } = request;
  const address = held(store, request);
  if (address !== undefined) return { address, isNew: false };
  const made = requested === undefined ? takeNext(store, request) : takeRequested(store, request, requested);
  store.setLastReserved(request.at, made);
  return { address: made, isNew: true };
}

/** Removes the owner's leases of this address, if they are still the owner's. */
export function release(store: LeaseStore, owner: Owner, address: IpAddress): void {
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

/** Whether the set has an address to give when it is empty. */
export function hasRoom(sets: readonly RangeSet[], set: RangeSet): boolean {
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
 * The same attachment again gets the same address: Nomad retries an ADD that failed further down the list, and adds again
 * after a CHECK that failed, both without DEL.
 */
function held(store: LeaseStore, request: Request): IpAddress | undefined {
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

function takeNext(store: LeaseStore, request: Request): IpAddress {
  const { sets, at, owner } = request;
  const set = setOf(request);
  for (;;) {
    const address = nextFree(
      set,
      store.lastReserved(at),
      (interval) => store.firstFree(interval),
      (candidate) => isExcluded(sets, candidate),
    );
    if (address === undefined) {
      if (reclaim(store, request, (candidate) => rangeOf(set, candidate) !== undefined) > 0) continue;
      throw failure(
        at,
        `no IP addresses available in range set: ${describeSet(set)}`,
        'every address has a lease: `weft leases` shows whose they are',
      );
    }
    if (store.create(address, owner)) return address;
    // The catalog said free and the file is there: it is read anew, once; after that it cannot be wrong.
    store.refresh();
  }
}

function takeRequested(store: LeaseStore, request: Request, address: IpAddress): IpAddress {
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
  if (reclaim(store, request, isRequested) > 0 && store.create(address, owner)) return address;
  const holder = store.leases().find((lease) => same(lease.address, address))?.lease;
  const key = holder === undefined ? undefined : ownerKey(holder);
  throw failure(
    at,
    `requested IP address ${text} is not available in range set ${describeSet(setOf(request))}`,
    key === undefined
      ? undefined
      : `it is leased to ${key.replace('\r\n', ' (')}${key.includes('\r\n') ? ')' : ''}`,
  );
}

/** The last resort before an ADD fails: leases that nobody can be using. */
function reclaim(store: LeaseStore, { warn }: Request, concerns: (address: IpAddress) => boolean): number {
  const candidates = store.leases().filter(({ address }) => address !== undefined && concerns(address));
  const dead = reclaimable(candidates);
  for (const { found, why } of dead) {
    warn(`reclaimed ${found.path}: ${why}`);
    store.remove(found);
  }
  return dead.length;
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
