import {
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { addressOfName } from '../attachments/lease-files.ts';
import { readRegularFile } from '../kernel/files.ts';

/**
 * What the leases of a store say, in one file beside it, so that a call need not read a thousand lease files. It is a hint: it counts only
 * while the store's folder has the times that the last call left and the same addresses (the kernel's file times advance only every 1 to 10 ms, so
 * another program's change may leave the times as they are), and each lease that a call uses is confirmed by its own file.
 *
 * /run/weft/ipam/DEVICE-INODE (of the store's folder), JSON:
 *   { "mtimeNs": "…", "ctimeNs": "…", "leases": { "10.0.0.2": "container id\r\nifname", "10.0.0.3": null } }
 * null: something under an address's name that is no lease.
 */
export const INDEX_DIR = '/run/weft/ipam';

/** Address (as the lease's file is named) -> owner; undefined for what is no lease. */
export type LeaseIndex = Map<string, string | undefined>;

/** @returns undefined when there is none, or the store was changed by another program since */
export function readIndex(store: string): LeaseIndex | undefined {
  try {
    const { mtimeNs, ctimeNs, leases } = JSON.parse(readRegularFile(fileOf(store)) ?? '') as IndexFile;
    const now = timesOf(store);
    if (mtimeNs !== now.mtimeNs || ctimeNs !== now.ctimeNs) return undefined;
    const index = new Map(Object.entries(leases).map(([address, owner]) => [address, owner ?? undefined]));
    const names = readdirSync(store).filter((name) => addressOfName(name) !== undefined);
    return names.length === index.size && names.every((name) => index.has(name)) ? index : undefined;
  } catch {
    // Missing, or not ours: the lease files are read instead.
    return undefined;
  }
}

/** To be called after the last change to the store, while its lock is held. */
export function writeIndex(store: string, leases: LeaseIndex): void {
  const content: IndexFile = {
    ...timesOf(store),
    leases: Object.fromEntries([...leases].map(([address, owner]) => [address, owner ?? null])),
  };
  const file = fileOf(store);
  mkdirSync(INDEX_DIR, { recursive: true, mode: 0o700 });
  writeFileSync(`${file}.new`, JSON.stringify(content), { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

/** The folder is removed with the last index. */
export function removeIndex(store: string): void {
  const file = fileOf(store);
  if (!existsSync(file)) return;
  rmSync(file);
  try {
    rmdirSync(INDEX_DIR);
  } catch {
    // Other stores have an index.
  }
}

interface IndexFile {
  readonly mtimeNs: string;
  readonly ctimeNs: string;
  readonly leases: Readonly<Record<string, string | null>>;
}

function timesOf(store: string): { mtimeNs: string; ctimeNs: string } {
  const { mtimeNs, ctimeNs } = statSync(store, { bigint: true });
  return { mtimeNs: String(mtimeNs), ctimeNs: String(ctimeNs) };
}

function fileOf(store: string): string {
  const { dev, ino } = statSync(store, { bigint: true });
  return `${INDEX_DIR}/${dev.toString(16)}-${ino.toString(16)}`;
}
