/**
 * The blob that Node makes of a single executable application with a startup snapshot, as Node 26.10 writes it
 * (src/node_sea.cc SeaSerializer, src/node_snapshotable.cc SnapshotSerializer); no public format, hence the checks.
 *
 *   u32 magic 0x0143da20 | u32 flags | u8 execArgvExtension | u8 main format
 *   | u64 n, code path | u64 n, snapshot | assets, execArgv (left as they are)
 *
 *   snapshot: u32 magic 0x0143da19 | metadata | V8 blob | realm data |
 *             code cache: u64 count, then per built-in module: u64 n, id | u64 n, cache bytes
 */
import { demand } from './elf.mjs';

export const SEA_MAGIC = 0x0143da20;
const SNAPSHOT_MAGIC = 0x0143da19;
const CODE_PATH = 10;

/**
 * A snapshot carries the compiled code of all ~440 modules of Node, 3.9 MB that every start copies to its heap. What an application
 * has loaded before the snapshot is in the snapshot already, so only modules that it loads at run time profit from their entry.
 * @param {Buffer} blob
 * @param {readonly string[]} keep ids of built-in modules whose entries stay
 * @returns {{ blob: Buffer, before: number, after: number }} number of entries
 */
export function trimCodeCache(blob, keep) {
  const snapshot = locateSnapshot(blob);
  const bytes = blob.subarray(snapshot.start, snapshot.end);
  const cache = findCodeCache(bytes);
  const kept = cache.entries.filter(({ id }) => keep.includes(id));
  demand(kept.length === keep.length, `the snapshot lacks code for one of ${keep.join(', ')}`);
  const trimmed = Buffer.concat([
    bytes.subarray(0, cache.start),
    u64(kept.length),
    ...kept.map(({ from, to }) => bytes.subarray(from, to)),
  ]);
  return {
    blob: Buffer.concat([
      blob.subarray(0, snapshot.start - 8),
      u64(trimmed.length),
      trimmed,
      blob.subarray(snapshot.end),
    ]),
    before: cache.entries.length,
    after: kept.length,
  };
}

/** Where the snapshot lies in a blob. @param {Buffer} blob */
export function locateSnapshot(blob) {
  demand(
    blob.length > 64 && blob.readUInt32LE(0) === SEA_MAGIC,
    'not a blob of a single executable application',
  );
  const lengthAt = CODE_PATH + 8 + Number(blob.readBigUInt64LE(CODE_PATH));
  demand(lengthAt + 8 < blob.length, 'the code path runs past the end');
  const start = lengthAt + 8;
  const end = start + Number(blob.readBigUInt64LE(lengthAt));
  demand(end <= blob.length && blob.readUInt32LE(start) === SNAPSHOT_MAGIC, 'no startup snapshot inside');
  return { start, end };
}

/**
 * The code cache is the snapshot's last part, but what stands before it cannot be skipped without knowing V8's formats. So: the
 * one place from which a count and that many well-formed entries lead exactly to the end.
 * @param {Buffer} snapshot
 */
function findCodeCache(snapshot) {
  for (let start = snapshot.length - 8; start > 0; start -= 1) {
    // Cheap test first: a count between 10 and 1000 as u64.
    const count = snapshot.readUInt32LE(start);
    if (count < 10 || count > 1000 || snapshot.readUInt32LE(start + 4) !== 0) continue;
    const entries = readEntries(snapshot, start + 8, count);
    if (entries !== undefined) return { start, entries };
  }
  demand(false, 'no table of compiled built-in modules at the end of the snapshot');
  return { start: 0, entries: [] };
}

/** @param {Buffer} bytes @param {number} start @param {number} count */
function readEntries(bytes, start, count) {
  const entries = [];
  let at = start;
  for (let index = 0; index < count; index += 1) {
    const id = readString(bytes, at, 100);
    if (id === undefined || !/^[a-z0-9_/-]{2,}$/i.test(id.text.toString('latin1'))) return undefined;
    const code = readString(bytes, id.end, bytes.length);
    if (code === undefined) return undefined;
    entries.push({ id: id.text.toString('latin1'), from: at, to: code.end });
    at = code.end;
  }
  return at === bytes.length ? entries : undefined;
}

/** @param {Buffer} bytes @param {number} at @param {number} longest */
function readString(bytes, at, longest) {
  if (at + 8 > bytes.length || bytes.readUInt32LE(at + 4) !== 0) return undefined;
  const length = bytes.readUInt32LE(at);
  const end = at + 8 + length;
  return length > longest || end > bytes.length ? undefined : { text: bytes.subarray(at + 8, end), end };
}

/** @param {number} value */
function u64(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
