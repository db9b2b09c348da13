import { Elf, PT, requireLayout } from './elf.mjs';

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

export const SEA_MAGIC = 0x0143da20;
const SNAPSHOT_MAGIC = 0x0143da19;
const CODE_PATH = 10;

/**
 * A snapshot carries the compiled code of all ~440 modules of Node, 3.9 MB that every start copies to its heap. What an application
 * loaded before the snapshot is part of the heap, so only modules that it loads at run time use their entry.
 * @param {Buffer} blob
 * @param {readonly string[]} keep ids of built-in modules whose entries stay
 * @returns {{ blob: Buffer, before: number, after: number }} number of entries
 */
export function trimCodeCache(blob, keep) {
  const snapshot = locateSnapshot(blob);
  const bytes = blob.subarray(snapshot.start, snapshot.end);
  const cache = findCodeCache(bytes);
  const kept = cache.entries.filter(({ id }) => keep.includes(id));
  requireLayout(kept.length === keep.length, `the snapshot lacks code for one of ${keep.join(', ')}`);
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
  requireLayout(
    blob.length > 64 && blob.readUInt32LE(0) === SEA_MAGIC,
    'not a blob of a single executable application',
  );
  const lengthAt = CODE_PATH + 8 + Number(blob.readBigUInt64LE(CODE_PATH));
  requireLayout(lengthAt + 8 < blob.length, 'the code path runs past the end');
  const start = lengthAt + 8;
  const end = start + Number(blob.readBigUInt64LE(lengthAt));
  requireLayout(
    end <= blob.length && blob.readUInt32LE(start) === SNAPSHOT_MAGIC,
    'no startup snapshot inside',
  );
  return { start, end };
}

/**
 * The code cache is the last part of the snapshot; the parts before it cannot be parsed without knowledge of V8's formats. Searches for
 * the one offset from which a count and that many well-formed entries end exactly at the end.
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
  requireLayout(false, 'no table of compiled built-in modules at the end of the snapshot');
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

/**
 * Replaces the blob inside an executable made by pkg with a smaller one, and removes the unused bytes before it (postject reserves space
 * for .bss in the file) and after it.
 * pkg (postject) puts the blob into a note at the end of a read-only segment of its own, the last of the file:
 *
 *   LOAD r-- | copies of older notes | u32 15-1 | u32 blob size | u32 type | "NODE_SEA_BLOB" 0 0 0 | blob | zeros |
 *   NOTE       the same place, up to the blob's end
 */

/** The largest page of x64 and arm64: offsets and addresses of a segment must agree modulo the page. */
const ALIGNMENT = 65_536;
const NAME = Buffer.from('NODE_SEA_BLOB\0\0\0', 'latin1');

/**
 * @param {Buffer} executable not changed
 * @param {Buffer} blob
 * @returns {Buffer} the new executable
 */
export function replaceBlob(executable, blob) {
  const bytes = Buffer.from(executable);
  const elf = new Elf(bytes);
  const segments = elf.segments();
  const note = segments.find(({ type, offset, fileSize }) => {
    const at = bytes.indexOf(NAME, offset);
    return type === PT.NOTE && at >= 0 && at < offset + fileSize;
  });
  requireLayout(note, 'no note segment with a blob');
  const nameAt = bytes.indexOf(NAME, note.offset);
  const start = nameAt + NAME.length;
  const oldSize = bytes.readUInt32LE(nameAt - 8);
  requireLayout(
    bytes.readUInt32LE(start) === SEA_MAGIC,
    'the note holds no blob of a single executable application',
  );
  requireLayout(start + oldSize <= note.offset + note.fileSize, 'the blob runs past its segment');
  requireLayout(blob.length <= oldSize, 'the new blob is larger than the old one');
  const home = segments.find(
    (s) => s.type === PT.LOAD && s.offset <= note.offset && s.offset + s.fileSize >= start + oldSize,
  );
  requireLayout(
    home && home.address % ALIGNMENT === 0 && segments.every((s) => s.offset <= home.offset + home.fileSize),
    'the blob is not in the last segment',
  );

  bytes.writeUInt32LE(blob.length, nameAt - 8);
  elf.resizeSegment(note, start + blob.length - note.offset);
  elf.resizeSegment(home, start + blob.length - home.offset);
  const end = Math.max(...segments.map((s) => (s === home || s === note ? 0 : s.offset + s.fileSize)));
  const place = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
  elf.setU64(home.at + 8, place);
  elf.setU64(note.at + 8, place + note.offset - home.offset);
  dropSectionHeaders(bytes);
  return Buffer.concat([
    bytes.subarray(0, end),
    Buffer.alloc(place - end),
    bytes.subarray(home.offset, start),
    blob,
  ]);
}

/**
 * The section headers that postject leaves do not describe the file, and no loader reads them. Without any, tools that would break
 * the executable (`strip` by a packager's habit) refuse it and leave it whole.
 *   ELF header: 40 e_shoff u64 | 60 e_shnum u16 | 62 e_shstrndx u16
 * @param {Buffer} bytes
 */
function dropSectionHeaders(bytes) {
  bytes.fill(0, 40, 48);
  bytes.fill(0, 60, 64);
}
