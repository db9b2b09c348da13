import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  type Stats,
} from 'node:fs';
import { CniCode, CniError } from '../cni/errors.ts';
import { isErrno } from './errno.ts';

/** Longest file that is read where nothing says otherwise. */
export const DEFAULT_LIMIT_BYTES = 1024 * 1024;

export interface ReadOptions {
  /** Default 1 MiB. */
  readonly limitBytes?: number;
  /** Whether the last part of the path may be a symbolic link; default true. */
  readonly followLinks?: boolean;
  /** Default `utf8`. */
  readonly encoding?: 'utf8' | 'latin1';
}

/**
 * The text of a regular file at a path that others may write to. A FIFO, a device or a file without end at that path neither blocks the
 * call nor fills its memory.
 * @returns undefined when there is nothing at the path
 * @throws CniError 5 when it is no regular file, is larger than the limit, or cannot be read
 */
export function readRegularFile(path: string, options: ReadOptions = {}): string | undefined {
  const { limitBytes = DEFAULT_LIMIT_BYTES, followLinks = true, encoding = 'utf8' } = options;
  const fd = openRegularFile(path, constants.O_RDONLY, { followLinks });
  if (fd === undefined) return undefined;
  try {
    const bytes = readAtMost(fd, limitBytes + 1);
    if (bytes.length <= limitBytes) return bytes.toString(encoding);
  } catch (thrown) {
    throw cannotRead(path, thrown);
  } finally {
    closeSync(fd);
  }
  throw new CniError(CniCode.IoFailure, `${path}: larger than ${sizeText(limitBytes)}`);
}

/**
 * Opens a regular file without waiting (O_NONBLOCK), close-on-exec, and checks its type before (opening some devices has effects) and after.
 * @param flags O_RDONLY, O_RDWR, ... of `fs.constants`, without O_CREAT
 * @returns undefined when there is nothing at the path
 * @throws CniError 5
 */
export function openRegularFile(
  path: string,
  flags: number,
  { followLinks = true }: Pick<ReadOptions, 'followLinks'> = {},
): number | undefined {
  let fd: number;
  try {
    const found = (followLinks ? statSync : lstatSync)(path, { throwIfNoEntry: false });
    if (found === undefined) return undefined;
    requireRegular(path, found);
    fd = openSync(path, flags | OPEN_WITHOUT_WAITING | (followLinks ? 0 : constants.O_NOFOLLOW));
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT', 'ENOTDIR')) return undefined;
    throw cannotRead(path, thrown);
  }
  try {
    requireRegular(path, fstatSync(fd));
    return fd;
  } catch (thrown) {
    closeSync(fd);
    throw thrown;
  }
}

/** @throws CniError 5, naming what it is instead: `x: not a regular file (FIFO)` */
export function requireRegular(path: string, stats: Stats): void {
  if (stats.isFile()) return;
  throw new CniError(CniCode.IoFailure, `${path}: not a regular file (${fileType(stats)})`);
}

/** O_NONBLOCK, and O_CLOEXEC, which node:fs sets itself but does not list among its constants. */
const OPEN_WITHOUT_WAITING = constants.O_NONBLOCK | 0o2000000;
const CHUNK_BYTES = 64 * 1024;

function readAtMost(fd: number, mostBytes: number): Buffer {
  const chunks: Buffer[] = [];
  const { size } = fstatSync(fd);
  // With a byte more than the file has, the first read finds the end. Files of /proc have no size.
  let next = size > 0 ? size + 1 : CHUNK_BYTES;
  for (let left = mostBytes; left > 0; next = CHUNK_BYTES) {
    const chunk = Buffer.allocUnsafe(Math.min(left, next));
    const length = readSync(fd, chunk);
    chunks.push(chunk.subarray(0, length));
    left -= length;
    if (length === 0 || (size > 0 && length < chunk.length)) break;
  }
  return Buffer.concat(chunks);
}

/**
 * The text of a short file below /proc or /sys. readFileSync asks for the size, which is 0 there, and reads until nothing comes: with it such
 * files take twice the time.
 * @throws the fs error
 */
export function readKernelFile(path: string): string {
  page ??= Buffer.allocUnsafeSlow(PAGE_BYTES);
  const fd = openSync(path, constants.O_RDONLY);
  try {
    const length = readSync(fd, page);
    // The kernel ends a read where the next line does not fit into its page: half a page is the whole file.
    if (length <= PAGE_BYTES / 2) return page.toString('latin1', 0, length);
  } finally {
    closeSync(fd);
  }
  return readFileSync(path, 'latin1');
}

const PAGE_BYTES = 4096;
let page: Buffer | undefined;

/** Undefined where `read` throws, for what is only a help or may go away meanwhile, such as processes while /proc is read. */
export function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function cannotRead(path: string, thrown: unknown): CniError {
  if (thrown instanceof CniError) return thrown;
  const reason = thrown instanceof Error ? thrown.message : String(thrown);
  return new CniError(CniCode.IoFailure, `cannot read ${path}: ${reason}`, { cause: thrown });
}

function fileType(stats: Stats): string {
  if (stats.isFIFO()) return 'FIFO';
  if (stats.isDirectory()) return 'directory';
  if (stats.isSymbolicLink()) return 'symbolic link';
  if (stats.isSocket()) return 'socket';
  return stats.isCharacterDevice() ? 'character device' : 'block device';
}

function sizeText(bytes: number): string {
  return bytes % 2 ** 20 === 0 ? `${bytes / 2 ** 20} MiB` : `${bytes} bytes`;
}
