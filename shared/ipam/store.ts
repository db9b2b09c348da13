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
import {
  compareAddresses,
  formatAddress,
  nextAddress,
  parseAddress,
  type IpAddress,
} from '../net/address.ts';
import { readIndex, removeIndex, writeIndex, type LeaseIndex } from './index-file.ts';
import type { Interval } from './ranges.ts';
import { attempt } from '../kernel/files.ts';
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

/** One network's leases: a folder in the reference's format (docs/reference/files.md). Only to be used while its lock is held. */
export class Store {
  readonly #folder: string;
  #index: LeaseIndex;
  /** Of all lease files; undefined while the index is trusted. */
  #contents: StoreContents | undefined;
  #changed = false;

  constructor(folder: string) {
    this.#folder = folder;
    attempt(() => removeLeftovers(folder));
    this.#index = readIndex(folder) ?? this.#readAll();
  }

  /** Leases with exactly this owner, and those of old releases that name only the container. Confirmed by their files. */
  leasesOf(owner: Owner): { exact: FoundLease[]; legacy: FoundLease[] } {
    return {
      exact: this.#leasesOfKey(formatLease(owner.containerId, owner.ifname)),
      legacy: this.#leasesOfKey(owner.containerId),
    };
  }

  /** Everything in the store; reads every file. */
  leases(): readonly FoundLease[] {
    this.refresh();
    return this.#contents?.leases ?? [];
  }

  firstFree({ first, last }: Interval): IpAddress | undefined {
    let address: IpAddress | undefined = first;
    while (address !== undefined && this.#index.has(formatAddress(address))) address = nextAddress(address);
    return address !== undefined && compareAddresses(address, last) <= 0 ? address : undefined;
  }

  /**
   * Writes a lease, whole or not at all: a file with all its contents on disk gets its name by link(2), which also refuses
   * a name that exists. @returns false when the address is taken
   */
  create(address: IpAddress, owner: Owner): boolean {
    const text = formatLease(owner.containerId, owner.ifname);
    this.#changed = true;
    const made = placeFile(this.#folder, text, (temporary) => linkSync(temporary, this.#path(address)));
    // A lease that was not there before: written without the lock, by an operator's script or a copy of the folder in progress.
    this.#index.set(formatAddress(address), made ? text : ownerKey(readLease(this.#path(address))));
    return made;
  }

  /** Gives a lease that named only the container its full text, so that it cannot count for another interface as well. */
  adopt({ path, address }: FoundLease, owner: Owner): void {
    const text = formatLease(owner.containerId, owner.ifname);
    this.#changed = true;
    placeFile(this.#folder, text, (temporary) => renameSync(temporary, path));
    if (address !== undefined) this.#index.set(formatAddress(address), text);
  }

  /** Sets the lease's time to now: an ADD asked for it again, so it is not from an earlier boot. */
  renew({ path }: FoundLease): void {
    lutimesSync(path, new Date(), new Date());
  }

  remove({ path, address }: FoundLease): void {
    rmSync(path, { force: true });
    this.#changed = true;
    if (address !== undefined) this.#index.delete(formatAddress(address));
  }

  /** Undefined if there is none, or no address in it. */
  lastReserved(set: number): IpAddress | undefined {
    return parseAddress(
      (readStoreFile(`${this.#folder}/${lastReservedName(set)}`, MAX_ADDRESS_BYTES) || '').trim(),
    );
  }

  /** Only the order of allocation depends on it, so a failure is no reason to fail a call whose lease is written. */
  setLastReserved(set: number, address: IpAddress): void {
    this.#changed = true;
    attempt(() => overwriteFile(this.#folder, lastReservedName(set), formatAddress(address)));
  }

  /**
   * Replaces an index that was read from its file, and may be wrong, by the lease files; removes empty leases.
   * @returns false if all files were read before
   */
  refresh(): boolean {
    if (this.#contents !== undefined) return false;
    this.#index = this.#readAll();
    return true;
  }

  /** Keeps the index for the next call; if that fails, the next call reads all leases. */
  keep(): void {
    attempt(() => {
      if (this.#index.size < KEEP_FROM || this.#contents?.isFlat === false || this.#hasOtherNames()) {
        removeIndex(this.#folder);
      } else if (this.#changed || this.#contents !== undefined) {
        writeIndex(this.#folder, this.#index);
      }
    });
  }

  #leasesOfKey(key: string): FoundLease[] {
    const strays = this.#contents?.leases.filter(({ address }) => address === undefined) ?? [];
    const indexed = [...this.#index].filter(([, owner]) => owner === key);
    const leases = indexed.map(([name]): FoundLease => {
      const path = `${this.#folder}/${name}`;
      return { path, address: parseAddress(name), lease: readLease(path), isFile: true };
    });
    return [...leases, ...strays].filter(({ lease }) => ownerKey(lease) === key);
  }

  #readAll(): LeaseIndex {
    const contents = scanStore(this.#folder);
    const leases = contents.leases.filter((found) => !this.#isCrashLeftover(found));
    this.#contents = { ...contents, leases };
    return new Map(
      leases.flatMap(({ address, lease }) =>
        address === undefined ? [] : [[formatAddress(address), ownerKey(lease)]],
      ),
    );
  }

  /** No other process is writing while the lock is held: the writer of an empty lease died. */
  #isCrashLeftover({ path, address, lease }: FoundLease): boolean {
    if (lease.kind !== 'empty' || address === undefined) return false;
    rmSync(path, { force: true });
    return true;
  }

  /** Leases under names that are no addresses are not in the index. */
  #hasOtherNames(): boolean {
    return (
      this.#contents?.leases.some(
        ({ address, lease }) => address === undefined && ownerKey(lease) !== undefined,
      ) === true
    );
  }

  #path(address: IpAddress): string {
    return `${this.#folder}/${formatAddress(address)}`;
  }
}

function workOn<T>(store: Store, work: (store: Store) => T): T {
  const result = work(store);
  store.keep();
  return result;
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

/** Fewer leases are read faster than an index is written, and small hosts need no extra file. */
const KEEP_FROM = 32;
/** More than any address has. */
const MAX_ADDRESS_BYTES = 100;
