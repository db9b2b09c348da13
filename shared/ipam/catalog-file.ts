import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
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
import { openRegularFile } from '../kernel/files.ts';
import { Catalog, SLOT_BYTES, type MemorySlots, type SlotSource } from './catalog.ts';

/**
 * The catalog of a store, kept in a file between calls, so that no call reads all leases. It is a cache that can be deleted at any
 * time. It is outside of the store, because the reference takes every file in there for a lease.
 *
 *   0        8          12      16               24               64
 *   +--------+----------+-------+----------------+----------------+---------------- - -
 *   | magic  | capacity | used  | mtime of store | ctime of store | slots
 *   +--------+----------+-------+----------------+----------------+---------------- - -
 *   little-endian; times in nanoseconds
 *
 * How a change by the reference, which knows no catalog, is noticed: adding or removing a lease sets the modification time of the
 * store's folder to now. After each of our own changes we set that time to a random moment in the past and write it into the header:
 * the seal. If the folder's times are not the sealed ones, another program changed it, or a call of ours was killed; then all leases
 * are read again. (Comparing times without setting them is not enough: the kernel's file clock advances in steps of up to 10 ms, in
 * which another program can make a whole call.) All this happens under the store's lock.
 */
export interface OpenCatalog {
  readonly catalog: Catalog;
  /** Records that the catalog agrees with the store. Without it (error, kill) the next call reads all leases. */
  readonly seal: () => void;
  readonly close: () => void;
}

export const CATALOG_DIR = '/run/weft/ipam';

/** The catalog file of this store, if there is one and no other program changed the store since. */
export function openCatalog(store: string): OpenCatalog | undefined {
  const file = catalogFile(store);
  const fd = openRegularFile(file, constants.O_RDWR, { followLinks: false });
  if (fd === undefined) return undefined;
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

/** Writes a catalog that was built from all leases to a new file. */
export function keepCatalog(store: string, slots: MemorySlots, used: number): void {
  const file = catalogFile(store);
  mkdirSync(CATALOG_DIR, { recursive: true, mode: 0o700 });
  const temporary = `${file}.new`;
  rmSync(temporary, { force: true });
  const fd = openSync(temporary, 'wx', 0o600);
  try {
    writeSync(fd, slots.bytes, 0, slots.bytes.length, HEADER_BYTES);
    writeSync(fd, headerBytes(slots.capacity, used, sealFolder(store)), 0, HEADER_BYTES, 0);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, file);
}

/** Deletes the catalog file, and its folders if it was the last one. */
export function dropCatalog(store: string): void {
  const file = catalogFile(store);
  if (lstatSync(file, { throwIfNoEntry: false }) === undefined) return;
  rmSync(file, { force: true });
  rmSync(`${file}.new`, { force: true });
  try {
    rmdirSync(CATALOG_DIR);
    rmdirSync(CATALOG_DIR.slice(0, CATALOG_DIR.lastIndexOf('/')));
  } catch {
    // Not empty: catalogs of other stores, or other files of the suite.
  }
}

const MAGIC = 'WEFTIPM1';
const HEADER_BYTES = 64;
/** For 260,000 leases; the store of a larger network is read at each call. */
const LARGEST_CAPACITY = 2 ** 20;

interface Header {
  readonly capacity: number;
  readonly used: number;
  readonly sealed: Times;
}

interface Times {
  readonly mtimeNs: bigint;
  readonly ctimeNs: bigint;
}

/** Named by device and inode: a store has one catalog under all of its paths (/run and /var/run). */
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
  const isPowerOfTwo = capacity > 0 && capacity <= LARGEST_CAPACITY && (capacity & (capacity - 1)) === 0;
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
