import { closeSync, constants, fstatSync, openSync, readdirSync, readSync, type Dirent } from 'node:fs';
import { formatAddress, parseAddress, type IpAddress } from '../net/address.ts';

/** Where host-local keeps its leases unless `ipam.dataDir` says otherwise: one folder per network. */
export const DEFAULT_DATA_DIR = '/var/lib/cni/networks';

/**
 * Contents of a lease file of host-local: `<container id>\r\n<ifname>`, without a newline at the end (docs/on-disk.md).
 *
 * - `exact`: both parts;
 * - `legacy`: written by an old release of the reference, which stored the container id alone;
 * - `empty`: only blanks and zero bytes, which a crash leaves between creating a file and writing its data to disk;
 * - `invalid`: neither; no DEL can release it.
 */
export type LeaseText =
  | { readonly kind: 'exact'; readonly containerId: string; readonly ifname: string }
  | { readonly kind: 'legacy'; readonly containerId: string }
  | { readonly kind: 'empty' }
  | { readonly kind: 'invalid' };

/** A file in a lease store whose name or contents make it a lease. */
export interface FoundLease {
  readonly path: string;
  /** From the file's name; undefined for a lease under another name, which the reference honours when it releases. */
  readonly address: IpAddress | undefined;
  readonly lease: LeaseText;
  /** False for a folder, link, socket etc. under an address's name: it reserves the address and is never removed. */
  readonly isFile: boolean;
}

export interface StoreContents {
  readonly leases: readonly FoundLease[];
  /** False if there are sub-folders: changes in them do not show in the modification time of the store's folder. */
  readonly isFlat: boolean;
}

export function formatLease(containerId: string, ifname: string): string {
  return `${containerId}\r\n${ifname}`;
}

export function parseLease(text: string): LeaseText {
  const trimmed = text.trim();
  if (/^[\0\s]*$/.test(trimmed)) return { kind: 'empty' };
  const [containerId = '', ifname, ...more] = trimmed.split('\r\n');
  if (!CONTAINER_ID.test(containerId) || more.length > 0) return { kind: 'invalid' };
  if (ifname === undefined) return { kind: 'legacy', containerId };
  return IFNAME.test(ifname) ? { kind: 'exact', containerId, ifname } : { kind: 'invalid' };
}

/** The owner as text, trimmed, as the reference compares owners; undefined if the file is no lease. */
export function ownerKey(lease: LeaseText): string | undefined {
  if (lease.kind === 'exact') return formatLease(lease.containerId, lease.ifname);
  return lease.kind === 'legacy' ? lease.containerId : undefined;
}

/**
 * Reads every lease of a store, sub-folders included, as the reference does. A missing store is empty.
 * Safe without the store's lock: a lease written by this suite is never incomplete.
 */
export function scanStore(store: string): StoreContents {
  const leases: FoundLease[] = [];
  let isFlat = true;
  for (const entry of listFolder(store)) {
    if (isStoreFile(entry.name)) continue;
    const path = `${store}/${entry.name}`;
    if (entry.isDirectory()) {
      isFlat = false;
      leases.push(...scanStore(path).leases.map((lease) => ({ ...lease, address: undefined })));
    }
    const isFile = entry.isFile();
    const lease: LeaseText = isFile ? readLease(path) : { kind: 'invalid' };
    leases.push({ path, address: addressOfName(entry.name), lease, isFile });
  }
  return { leases, isFlat };
}

/** The lease in this file; `empty` also if there is no such file, `invalid` if it is no regular file. */
export function readLease(path: string): LeaseText {
  const text = readStoreFile(path, LONGEST_LEASE);
  return text === undefined ? { kind: 'empty' } : text === false ? { kind: 'invalid' } : parseLease(text);
}

/**
 * The text of a small file of a store. Links are not followed, and neither a FIFO nor a device can block the call.
 * @returns undefined if it is missing; false if it is no regular file or longer than `limitBytes`
 */
export function readStoreFile(path: string, limitBytes: number): string | false | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    // A symbolic link, a socket, a device without a driver.
    if (code === 'ELOOP' || code === 'ENXIO' || code === 'ENODEV') return false;
    throw thrown;
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.size > limitBytes) return false;
    buffer ??= Buffer.alloc(BUFFER_BYTES);
    const target = stat.size > BUFFER_BYTES ? Buffer.alloc(stat.size) : buffer;
    return target.toString('utf8', 0, readSync(fd, target, 0, target.length, 0));
  } finally {
    closeSync(fd);
  }
}

/** Of a lease while it is written, where the store is a mount of its own. */
export const TEMPORARY_NAME = '.weft.tmp';

/** `lock`, `last_reserved_ip.N` and {@link TEMPORARY_NAME} are no leases. */
function isStoreFile(name: string): boolean {
  return name === 'lock' || name.startsWith('last_reserved_ip.') || name === TEMPORARY_NAME;
}

/** The CNI specification's container id and an interface name as the kernel accepts it; ids may have any length. */
const CONTAINER_ID = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;
const IFNAME = /^[^\s/:\0]+$/;

/** CNI_CONTAINERID can have 128 KiB at most (MAX_ARG_STRLEN of linux/binfmts.h); a longer file is no lease. */
const LONGEST_LEASE = 132 * 1024;
/** Allocated at the first read and used for all. */
const BUFFER_BYTES = 4096;
let buffer: Buffer | undefined;

/**
 * The address that a file of a store is named after; undefined for other files. Only its canonical text counts, because the reference looks
 * leases up by that name.
 */
export function addressOfName(name: string): IpAddress | undefined {
  const address = parseAddress(name);
  if (address === undefined) return undefined;
  // An IPv4 address has one text only; comparing would cost time in a store of ten thousand.
  return !name.includes(':') || formatAddress(address) === name ? address : undefined;
}

function listFolder(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw thrown;
  }
}
