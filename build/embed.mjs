/**
 * Exchanges the blob inside an executable that pkg has made for another one that is not larger, and cuts off what is then unused,
 * in front of it (postject leaves room for .bss in the file) and behind.
 * pkg (postject) puts the blob into a note at the end of a read-only segment of its own, the last of the file:
 *
 *   LOAD r-- | copies of older notes | u32 15-1 | u32 blob size | u32 type | "NODE_SEA_BLOB" 0 0 0 | blob | zeros |
 *   NOTE       the same place, up to the blob's end
 */
import { Elf, PT, demand } from './elf.mjs';
import { SEA_MAGIC } from './sea-blob.mjs';

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
  demand(note, 'no note segment with a blob');
  const nameAt = bytes.indexOf(NAME, note.offset);
  const start = nameAt + NAME.length;
  const oldSize = bytes.readUInt32LE(nameAt - 8);
  demand(
    bytes.readUInt32LE(start) === SEA_MAGIC,
    'the note holds no blob of a single executable application',
  );
  demand(start + oldSize <= note.offset + note.fileSize, 'the blob runs past its segment');
  demand(blob.length <= oldSize, 'the new blob is larger than the old one');
  const home = segments.find(
    (s) => s.type === PT.LOAD && s.offset <= note.offset && s.offset + s.fileSize >= start + oldSize,
  );
  demand(
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
