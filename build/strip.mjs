/**
 * Drops what is never loaded (symbol table, debug information, comments: 34 MB of the Node binary), as `strip -s` does, but with the
 * same bytes on every machine and without binutils.
 *
 *   | ELF header | program headers | loaded segments … | .shstrtab | section headers (loaded ones only) |
 */
import { Elf, PT, SECTION_HEADER as HEADER, requireLayout } from './elf.mjs';

const SHF_ALLOC = 2n;

/**
 * @param {Buffer} bytes not changed
 * @returns {Buffer}
 */
export function stripElf(bytes) {
  const elf = new Elf(bytes);
  const sections = readSections(elf);
  const kept = sections.filter(({ header }) => (header.readBigUInt64LE(8) & SHF_ALLOC) !== 0n);
  // Links between sections are indices: they stay right because the loaded sections come first and keep their places.
  requireLayout(
    kept.length > 0 && kept.every((section, index) => section === sections[index + 1]),
    'sections that are not loaded stand between those that are',
  );
  const loadedEnd = Math.max(...elf.segments().map((s) => (s.type === PT.LOAD ? s.offset + s.fileSize : 0)));
  const names = ['', ...kept.map(({ name }) => name), '.shstrtab'];
  const nameTable = Buffer.from(`${names.join('\0')}\0`, 'latin1');
  const headersAt = Math.ceil((loadedEnd + nameTable.length) / 8) * 8;
  const out = Buffer.alloc(headersAt + names.length * HEADER);
  bytes.copy(out, 0, 0, loadedEnd);
  nameTable.copy(out, loadedEnd);
  let nameAt = 0;
  names.forEach((name, index) => {
    const header = kept[index - 1]?.header ?? Buffer.alloc(HEADER);
    header.copy(out, headersAt + index * HEADER);
    out.writeUInt32LE(nameAt, headersAt + index * HEADER);
    nameAt += name.length + 1;
  });
  const last = headersAt + (names.length - 1) * HEADER;
  out.writeUInt32LE(3, last + 4); // SHT_STRTAB
  out.writeBigUInt64LE(BigInt(loadedEnd), last + 24);
  out.writeBigUInt64LE(BigInt(nameTable.length), last + 32);
  out.writeBigUInt64LE(1n, last + 48);
  out.writeBigUInt64LE(BigInt(headersAt), 40); // e_shoff
  out.writeUInt16LE(names.length, 60); // e_shnum
  out.writeUInt16LE(names.length - 1, 62); // e_shstrndx
  return out;
}

/** @param {Elf} elf */
function readSections(elf) {
  const headers = elf.sections();
  const namesAt = Number(headers[elf.bytes.readUInt16LE(62)]?.readBigUInt64LE(24) ?? 0n);
  return headers.map((header) => {
    const start = namesAt + header.readUInt32LE(0);
    return { header, name: elf.bytes.toString('latin1', start, elf.bytes.indexOf(0, start)) };
  });
}
