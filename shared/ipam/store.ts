import { existsSync, linkSync, lutimesSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import {
  formatLease,
  ownerKey,
  readLease,
  readStoreFile,
  scanStore,
  type FoundLease,
  type StoreContents,
} from '../attachments/lease-files.ts';
import { CniCode, CniError } from '../cni/errors.ts';
import { withFileLock } from '../kernel/locks.ts';
import { formatAddress, parseAddress, type IpAddress } from '../net/address.ts';
import { Catalog, DamagedTable, MemorySlots } from './catalog.ts';
import { dropCatalog, keepCatalog, openCatalog, type OpenCatalog } from './catalog-file.ts';
import type { Interval } from './ranges.ts';
import { LOCK_MODE, overwriteFile, placeFile, removeLeftovers, repairLock } from './store-files.ts';

export interface Owner {
  readonly containerId: string;
  readonly ifname: string;
}

export interface StoreOptions {
  /** Whether to create a missing store; otherwise `work` is not run and undefined returned. */
  readonly create: boolean;
  /** Default: until the call's deadline. */
  readonly lockTimeoutMs?: number;
  readonly warn: (line: string) => void;
}

/**
 * Runs `work` on the network's store while holding its lock, which the reference honours too (and holds for each of its steps).
 * @throws CniError 11 if another process holds the lock too long, 5 if the file system refuses
 */
export function withStore<T>(
  folder: string,
  { create, lockTimeoutMs, warn }: StoreOptions,
  work: (store: Store) => T,
): T | undefined {
  try {
    if (create) mkdirSync(folder, { recursive: true, mode: 0o755 });
    else if (!existsSync(folder)) return undefined;
    repairLock(folder, warn);
    const lock = { mode: LOCK_MODE, ...(lockTimeoutMs !== undefined && { timeoutMs: lockTimeoutMs }) };
    return withFileLock(`${folder}/lock`, lock, () => workOn(new Store(folder), work));
  } catch (thrown) {
    // An operator removed it while this call waited: there is nothing to release.
    if (!create && !existsSync(folder)) return undefined;
    throw asStoreError(folder, thrown);
  }
}

/** One network's leases: a folder in the reference's format (docs/on-disk.md). Only to be used while its lock is held. */
export class Store {
  readonly #folder: string;
  #opened: OpenCatalog | undefined;
  #catalog: Catalog;
  #contents: StoreContents | undefined;
  #slots: MemorySlots | undefined;
  #changed = false;

  constructor(folder: string) {
    this.#folder = folder;
    attempt(() => removeLeftovers(folder));
    this.#opened = attempt(() => openCatalog(folder));
    this.#catalog = this.#opened?.catalog ?? this.#readAll();
  }

  /** Leases with exactly this owner, and those of old releases that name only the container. Confirmed by their files. */
  leasesOf(owner: Owner): { exact: FoundLease[]; legacy: FoundLease[] } {
    return this.#withCatalog(() => ({
      exact: this.#leasesOfKey(formatLease(owner.containerId, owner.ifname)),
      legacy: this.#leasesOfKey(owner.containerId),
    }));
  }

  /** Everything in the store; reads every file. */
  leases(): readonly FoundLease[] {
    this.refresh();
    return this.#contents?.leases ?? [];
  }

  firstFree(interval: Interval): IpAddress | undefined {
    return this.#withCatalog(() => this.#catalog.firstFree(interval));
  }

  /**
   * Writes a lease, whole or not at all: a file with all its contents on disk gets its name by link(2), which also refuses
   * a name that exists. @returns false when the address is taken
   */
  create(address: IpAddress, owner: Owner): boolean {
    const text = formatLease(owner.containerId, owner.ifname);
    this.#changed = true;
    const made = placeFile(this.#folder, text, (temporary) => linkSync(temporary, this.#path(address)));
    if (made) this.#update(() => this.#catalog.add(address, text));
    else this.#learn(address);
    return made;
  }

  /** Gives a lease that named only the container its full text, so that it cannot count for another interface as well. */
  adopt({ path, address, lease }: FoundLease, owner: Owner): void {
    const text = formatLease(owner.containerId, owner.ifname);
    this.#changed = true;
    placeFile(this.#folder, text, (temporary) => renameSync(temporary, path));
    if (address === undefined) return;
    this.#update(() => {
      this.#catalog.remove(address, ownerKey(lease));
      this.#catalog.add(address, text);
    });
  }

  /** Sets the lease's time to now: an ADD asked for it again, so it is not from an earlier boot. */
  renew({ path }: FoundLease): void {
    lutimesSync(path, new Date(), new Date());
  }

  remove({ path, address, lease }: FoundLease): void {
    rmSync(path, { force: true });
    this.#changed = true;
    if (address !== undefined) this.#update(() => this.#catalog.remove(address, ownerKey(lease)));
  }

  /** Undefined if there is none, or no address in it. */
  lastReserved(set: number): IpAddress | undefined {
    return parseAddress(
      (readStoreFile(`${this.#folder}/${lastReservedName(set)}`, LONGEST_ADDRESS) || '').trim(),
    );
  }

  /** Only the order of allocation depends on it, so a failure is no reason to fail a call whose lease is written. */
  setLastReserved(set: number, address: IpAddress): void {
    this.#changed = true;
    attempt(() => overwriteFile(this.#folder, lastReservedName(set), formatAddress(address)));
  }

  /**
   * Replaces a catalog that was opened from its file, and may be wrong, by the lease files; removes empty leases.
   * @returns false if all files were read before
   */
  refresh(): boolean {
    if (this.#contents !== undefined) return false;
    this.close();
    this.#catalog = this.#readAll();
    return true;
  }

  /** Keeps the catalog for the next call; if that fails, the next call reads all leases. */
  keep(): void {
    attempt(() => {
      if (this.#catalog.used === 0) {
        dropCatalog(this.#folder);
        return;
      }
      if (this.#opened !== undefined) {
        if (this.#changed) this.#opened.seal();
        return;
      }
      if (this.#slots !== undefined && this.#isWorthKeeping()) {
        keepCatalog(this.#folder, this.#slots, this.#catalog.used);
        return;
      }
      dropCatalog(this.#folder);
    });
  }

  close(): void {
    this.#opened?.close();
    this.#opened = undefined;
  }

  #leasesOfKey(key: string): FoundLease[] {
    const strays = this.#contents?.leases.filter(({ address }) => address === undefined) ?? [];
    const hinted = this.#catalog.addressesOf(key).map((address): FoundLease => {
      const path = this.#path(address);
      return { path, address, lease: readLease(path), isFile: true };
    });
    return [...hinted, ...strays].filter(({ lease }) => ownerKey(lease) === key);
  }

  /**
   * Adds a lease that was not there when all were read: written without the lock, by an operator's script or a copy of the folder in
   * progress. Otherwise allocation would try the same address again and again.
   */
  #learn(address: IpAddress): void {
    if (this.#contents === undefined || this.#catalog.isTaken(address)) return;
    const lease = readLease(this.#path(address));
    this.#catalog.add(address, ownerKey(lease));
  }

  /** Reads from the catalog; if its file is damaged, from one built from the lease files. */
  #withCatalog<T>(read: () => T): T {
    try {
      return read();
    } catch (thrown) {
      if (!(thrown instanceof DamagedTable) || !this.refresh()) throw thrown;
      return read();
    }
  }

  /** Notes in the catalog what was just done to a file; a damaged catalog is built anew, and then knows it already. */
  #update(change: () => void): void {
    try {
      change();
    } catch (thrown) {
      if (!(thrown instanceof DamagedTable) || !this.refresh()) throw thrown;
    }
  }

  #readAll(): Catalog {
    const contents = scanStore(this.#folder);
    const leases = contents.leases.filter((found) => !this.#isCrashLeftover(found));
    this.#contents = { ...contents, leases };
    this.#slots = new MemorySlots(capacityFor(leases.length));
    const catalog = new Catalog(this.#slots);
    for (const { address, lease } of leases) if (address !== undefined) catalog.add(address, ownerKey(lease));
    return catalog;
  }

  /** No other process is writing while the lock is held: the writer of an empty lease died. */
  #isCrashLeftover({ path, address, lease }: FoundLease): boolean {
    if (lease.kind !== 'empty' || address === undefined) return false;
    rmSync(path, { force: true });
    return true;
  }

  #isWorthKeeping(): boolean {
    const contents = this.#contents;
    if (contents === undefined || !contents.isFlat || contents.leases.length < KEEP_FROM) return false;
    return !contents.leases.some(
      ({ address, lease }) => address === undefined && ownerKey(lease) !== undefined,
    );
  }

  #path(address: IpAddress): string {
    return `${this.#folder}/${formatAddress(address)}`;
  }
}

function workOn<T>(store: Store, work: (store: Store) => T): T {
  try {
    const result = work(store);
    store.keep();
    return result;
  } finally {
    store.close();
  }
}

/** An error of node:fs, as an error that says which store cannot be used and why. */
function asStoreError(folder: string, thrown: unknown): unknown {
  if (thrown instanceof CniError || !(thrown instanceof Error) || !('syscall' in thrown)) return thrown;
  return new CniError(CniCode.IoFailure, `cannot use the lease store ${folder}: ${thrown.message}`, {
    details: 'it must be a folder on a writable file system with space left',
    cause: thrown,
  });
}

function lastReservedName(set: number): string {
  return `last_reserved_ip.${set}`;
}

/** Fewer leases are read faster than a catalog is written, and small hosts need no extra file. */
const KEEP_FROM = 32;
/** Bytes; more than any address has. */
const LONGEST_ADDRESS = 100;

/** Owners, and as many pages if the addresses are far apart, fill at most half of it. */
function capacityFor(leases: number): number {
  let capacity = 256;
  while (capacity < leases * 4) capacity *= 2;
  return capacity;
}

/** For steps whose failure costs time or order only. */
function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
