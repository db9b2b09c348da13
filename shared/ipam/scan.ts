import { closeSync, constants, openSync, readdirSync, readSync, type Dirent } from 'node:fs';
import { formatAddress, parseAddress, type IpAddress } from '../net/address.ts';
import { parseLease, type LeaseText } from './lease.ts';

/** One file of a store that is, or stands in the place of, a lease. */
export interface FoundLease {
  readonly path: string;
  /** What the file's name says; undefined for a lease under another name, which the reference honours when it releases. */
  readonly address: IpAddress | undefined;
  readonly lease: LeaseText;
  /** False for a folder, link, socket … under an address's name: it takes the address, and is not ours to remove. */
  readonly isFile: boolean;
}

export interface StoreContents {
  readonly leases: readonly FoundLease[];
  /** False with folders inside: what changes in them does not show on the store's own folder. */
  readonly isFlat: boolean;
}

/** `lock`, `last_reserved_ip.N`, and what a killed call of ours may have left. */
export function isStoreFile(name: string): boolean {
  return name === 'lock' || name.startsWith('last_reserved_ip.') || name === TEMPORARY_NAME;
}

/** Of a lease while it is written, where the folder above the store is on another file system. */
export const TEMPORARY_NAME = '.weft.tmp';

/** Reads every lease of a store, folders inside included, as the reference does. A missing store is empty. */
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
    const lease: LeaseText = isFile ? readLease(path) : { kind: 'unreadable' };
    leases.push({ path, address: addressOfName(entry.name), lease, isFile });
  }
  return { leases, isFlat };
}

/** The lease in this file; `empty` as well when there is no such file. */
export function readLease(path: string): LeaseText {
  const text = readSmallFile(path);
  return parseLease(text ?? '');
}

/** The start of a file, or undefined when it is missing or no regular readable file (links are not followed). */
export function readSmallFile(path: string): string | undefined {
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP') return undefined;
    throw thrown;
  }
  try {
    buffer ??= Buffer.alloc(SMALL);
    return buffer.toString('utf8', 0, readSync(fd, buffer, 0, SMALL, 0));
  } finally {
    closeSync(fd);
  }
}

/** Only the text that the reference itself would write names an address: it asks by name. */
function addressOfName(name: string): IpAddress | undefined {
  const address = parseAddress(name);
  if (address === undefined) return undefined;
  // IPv4 has one text only, and a store may have ten thousand of them.
  return !name.includes(':') || formatAddress(address) === name ? address : undefined;
}

/** More than any container id and interface name: what is longer is no lease. */
const SMALL = 4096;
/** One for all reads, made at the first. */
let buffer: Buffer | undefined;

function listFolder(folder: string): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true });
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw thrown;
  }
}
