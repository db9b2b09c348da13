import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { Catalog } from './catalog.ts';
import { SLOT_BYTES, type MemorySlots, type SlotSource } from './slots.ts';

/**
 * The catalog of a store, kept from one call to the next, so that no call reads all leases. It is a hint that can be lost
 * at any time, and lies outside of the store, because the reference takes every file in there for a lease.
 *
 *   0        8          12      16               24               64
 *   +--------+----------+-------+----------------+----------------+---------------- - -
 *   | magic  | capacity | used  | mtime of store | ctime of store | slots
 *   +--------+----------+-------+----------------+----------------+---------------- - -
 *   little-endian; times in nanoseconds
 *
 * How a change by the reference, which knows no catalog, is noticed: adding or removing a lease sets the modification time of the
 * store's folder to now. After each of our own changes we set that time to a moment in the past, drawn at random, and write it
 * down here: the seal. A folder whose times are not the sealed ones has been changed by somebody else, or by a call of ours that
 * was killed; then all leases are read again. (Comparing times without setting them would not do: the kernel's file clock
 * stands still for up to 10 ms, long enough for a whole foreign call.) All this happens under the store's lock.
 */
export interface OpenCatalog {
  readonly catalog: Catalog;
  /** Writes down that the catalog and the store agree. Without it (error, kill) the next call reads all leases. */
  readonly seal: () => void;
  readonly close: () => void;
}

export const CATALOG_DIR = '/run/weft/ipam';

/** The kept catalog of this store if there is one and the store was not changed behind its back. */
export function openCatalog(store: string): OpenCatalog | undefined {
  const file = catalogFile(store);
  if (statSync(file, { throwIfNoEntry: false }) === undefined) return undefined;
  const fd = openSync(file, 'r+');
  const header = readHeader(fd);
  if (
    header === undefined ||
    !isSealedBy(header, store) ||
    fstatSync(fd).size !== fileSize(header.capacity)
  ) {
    closeSync(fd);
    return undefined;
  }
  const catalog = new Catalog(new FileSlots(fd, header.capacity), header.used);
  const seal = (): void => {
    if (catalog.isCrowded) rmSync(file, { force: true });
    else writeSync(fd, headerBytes(header.capacity, catalog.used, sealFolder(store)), 0, HEADER_BYTES, 0);
  };
  return { catalog, seal, close: () => closeSync(fd) };
}

/** Keeps a catalog that was built from all leases. */
export function keepCatalog(store: string, slots: MemorySlots, used: number): void {
  const file = catalogFile(store);
  mkdirSync(CATALOG_DIR, { recursive: true, mode: 0o700 });
  const temporary = `${file}.new`;
  const fd = openSync(temporary, 'w', 0o600);
  try {
    writeSync(fd, slots.bytes, 0, slots.bytes.length, HEADER_BYTES);
    writeSync(fd, headerBytes(slots.capacity, used, sealFolder(store)), 0, HEADER_BYTES, 0);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, file);
}

/** Forgets the kept catalog, and the folders that held it when it was the last. */
export function dropCatalog(store: string): void {
  const file = catalogFile(store);
  if (statSync(file, { throwIfNoEntry: false }) === undefined) return;
  rmSync(file, { force: true });
  rmSync(`${file}.new`, { force: true });
  try {
    rmdirSync(CATALOG_DIR);
    rmdirSync(CATALOG_DIR.slice(0, CATALOG_DIR.lastIndexOf('/')));
  } catch {
    // Not empty: other stores, or other things of the suite.
  }
}

const MAGIC = 'WEFTIPM1';
const HEADER_BYTES = 64;

interface Header {
  readonly capacity: number;
  readonly used: number;
  readonly sealed: Times;
}

interface Times {
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

/** By device and inode: the same store under two paths (/run and /var/run) is one. */
function catalogFile(store: string): string {
  const { dev, ino } = statSync(store, { bigint: true });
  return `${CATALOG_DIR}/${dev.toString(16)}-${ino.toString(16)}`;
}

class FileSlots implements SlotSource {
  readonly capacity: number;
  readonly #fd: number;

  constructor(fd: number, capacity: number) {
    this.#fd = fd;
    this.capacity = capacity;
  }

  read(at: number): Uint8Array {
    const slot = new Uint8Array(SLOT_BYTES);
    readSync(this.#fd, slot, 0, SLOT_BYTES, HEADER_BYTES + at * SLOT_BYTES);
    return slot;
  }

  write(at: number, slot: Uint8Array): void {
    writeSync(this.#fd, slot, 0, SLOT_BYTES, HEADER_BYTES + at * SLOT_BYTES);
  }
}

function readHeader(fd: number): Header | undefined {
  const bytes = new Uint8Array(HEADER_BYTES);
  if (readSync(fd, bytes, 0, HEADER_BYTES, 0) < HEADER_BYTES) return undefined;
  const view = new DataView(bytes.buffer);
  const capacity = view.getUint32(8, true);
  const isPowerOfTwo = capacity > 0 && (capacity & (capacity - 1)) === 0;
  if (Buffer.from(bytes.buffer, 0, MAGIC.length).toString('latin1') !== MAGIC || !isPowerOfTwo)
    return undefined;
  const sealed = { mtimeNs: view.getBigInt64(16, true), ctimeNs: view.getBigInt64(24, true) };
  return { capacity, used: view.getUint32(12, true), sealed };
}

function headerBytes(capacity: number, used: number, sealed: Times): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(Buffer.from(MAGIC, 'latin1'));
  view.setUint32(8, capacity, true);
  view.setUint32(12, used, true);
  view.setBigInt64(16, sealed.mtimeNs, true);
  view.setBigInt64(24, sealed.ctimeNs, true);
  return bytes;
}

function fileSize(capacity: number): number {
  return HEADER_BYTES + capacity * SLOT_BYTES;
}

/** Two seconds at least, so that a file system that counts whole seconds still tells the seal from now. */
function sealFolder(store: string): Times {
  const { atimeMs } = statSync(store);
  utimesSync(store, atimeMs / 1000, Date.now() / 1000 - 2 - 60 * Math.random());
  return statSync(store, { bigint: true });
}

function isSealedBy({ sealed }: Header, store: string): boolean {
  const { mtimeNs, ctimeNs } = statSync(store, { bigint: true });
  return mtimeNs === sealed.mtimeNs && ctimeNs === sealed.ctimeNs;
}
