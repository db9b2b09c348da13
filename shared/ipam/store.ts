import {
  closeSync,
  ftruncateSync,
  linkSync,
  openSync,
  renameSync,
  rmSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { formatAddress, parseAddress, type IpAddress } from '../net/address.ts';
import { Catalog } from './catalog.ts';
import { dropCatalog, keepCatalog, openCatalog, type OpenCatalog } from './catalog-file.ts';
import type { Interval } from './ring.ts';
import { placeFile, removeLeftovers } from './place.ts';
import {
  formatLease,
  ownerKey,
  readLease,
  readStoreFile,
  scanStore,
  type FoundLease,
  type StoreContents,
} from '../attachments/lease-files.ts';
import { MemorySlots } from './slots.ts';

export interface Owner {
  readonly containerId: string;
  readonly ifname: string;
}

/** What allocation needs of a store. */
export type LeaseStore = Pick<
  Store,
  | 'leasesOf'
  | 'leases'
  | 'firstFree'
  | 'create'
  | 'adopt'
  | 'renew'
  | 'remove'
  | 'lastReserved'
  | 'setLastReserved'
  | 'refresh'
>;

/** One network's leases: a folder in the reference's format (docs/reference/files.md). Only to be used while its lock is held. */
export class Store {
  readonly #folder: string;
  #opened: OpenCatalog | undefined;
  #catalog: Catalog;
  #contents: StoreContents | undefined;
  #slots: MemorySlots | undefined;
  #changed = false;

  constructor(folder: string) {
    this.#folder = folder;
    removeLeftovers(folder);
    this.#opened = attempt(() => openCatalog(folder));
    this.#catalog = this.#opened?.catalog ?? this.#readAll();
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

  firstFree(interval: Interval): IpAddress | undefined {
    return this.#catalog.firstFree(interval);
  }

  /**
   * Writes a lease, whole or not at all: a file with all its contents on disk gets its name by link(2), which also refuses
   * a name that exists. @returns false when the address is taken
   */
  create(address: IpAddress, owner: Owner): boolean {
    const text = formatLease(owner.containerId, owner.ifname);
    this.#changed = true;
    const made = placeFile(this.#folder, text, (temporary) => linkSync(temporary, this.#path(address)));
    if (made) this.#catalog.add(address, text);
    else this.#learn(address);
    return made;
  }

  /** Gives a lease that named only the container its full text, so that it cannot count for another interface as well. */
  adopt({ path, address, lease }: FoundLease, owner: Owner): void {
    const text = formatLease(owner.containerId, owner.ifname);
    this.#changed = true;
    placeFile(this.#folder, text, (temporary) => renameSync(temporary, path));
    if (address === undefined) return;
    this.#catalog.remove(address, ownerKey(lease));
    this.#catalog.add(address, text);
  }

  /** Marks a lease as asked for again, now: it is not from before this boot any more. */
  renew({ path }: FoundLease): void {
    utimesSync(path, new Date(), new Date());
  }

  remove({ path, address, lease }: FoundLease): void {
    rmSync(path, { force: true });
    this.#changed = true;
    if (address !== undefined) this.#catalog.remove(address, ownerKey(lease));
  }

  /** Undefined when there is none, or no address in it. */
  lastReserved(set: number): IpAddress | undefined {
    return parseAddress((readStoreFile(this.#lastReservedPath(set), 100) || '').trim());
  }

  /**
   * Written over in place, longest first: at no moment is the file empty. Losing it costs nothing but the order, so it is
   * no reason to fail a call whose lease is made.
   */
  setLastReserved(set: number, address: IpAddress): void {
    this.#changed = true;
    attempt(() => writeOver(this.#lastReservedPath(set), formatAddress(address)));
  }

  /** Reads all leases again, for when the catalog was found wrong, and removes empty ones. */
  refresh(): void {
    if (this.#contents !== undefined) return;
    this.close();
    this.#catalog = this.#readAll();
  }

  /** Leaves the catalog for the next call. That call does without when it cannot be kept. */
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
   * A lease that was not there when all were read: somebody wrote it without the lock, an operator's script or a copy of the
   * folder in progress. Unless it is noted, the same address would be tried for ever.
   */
  #learn(address: IpAddress): void {
    if (this.#contents === undefined || this.#catalog.isTaken(address)) return;
    this.#catalog.add(address, ownerKey(readLease(this.#path(address))));
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

  /** Under the lock nobody is in the middle of writing: an empty lease is one whose writer died. Removed at sight. */
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

  #lastReservedPath(set: number): string {
    return `${this.#folder}/last_reserved_ip.${set}`;
  }
}

/** Fewer leases are read faster than a catalog is kept, and small hosts stay without the extra file. */
const KEEP_FROM = 32;
/** O_WRONLY|O_CREAT: node's letters have no "open or create, keep the contents, write from the start". */
const CREATE_AND_WRITE = 0o101;

/** Owners, and as many pages when addresses lie far apart, fill half of it at most. */
function capacityFor(leases: number): number {
  let capacity = 256;
  while (capacity < leases * 4) capacity *= 2;
  return capacity;
}

function writeOver(file: string, text: string): void {
  const fd = openSync(file, CREATE_AND_WRITE, 0o600);
  try {
    writeSync(fd, text, 0);
    ftruncateSync(fd, text.length);
  } finally {
    closeSync(fd);
  }
}

/** For what is never worth an error: without the catalog all leases are read. */
function attempt<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch {
    return undefined;
  }
}
