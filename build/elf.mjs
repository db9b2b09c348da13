/**
 * Just enough of ELF to patch the Node binary: program headers, the dynamic section, addresses to file offsets.
 * 64-bit little-endian only (System V ABI, "Object Files" and "Program Loading and Dynamic Linking"; /usr/include/elf.h).
 */

export const PT = { LOAD: 1, DYNAMIC: 2, NOTE: 4, PHDR: 6 };
export const EM = { X86_64: 62, AARCH64: 183 };
export const PF_X = 1;
export const DT = {
  NULL: 0,
  NEEDED: 1,
  PLTRELSZ: 2,
  STRTAB: 5,
  SYMTAB: 6,
  RELA: 7,
  RELASZ: 8,
  JMPREL: 23,
  FLAGS: 30,
  GNU_HASH: 0x6ffffef5,
  VERSYM: 0x6ffffff0,
  VERNEED: 0x6ffffffe,
  VERNEEDNUM: 0x6fffffff,
};
export const DF_BIND_NOW = 8;
export const SECTION_HEADER = 64;

/** A file that is not laid out the way a patch needs it; nothing was changed. */
export class LayoutError extends Error {}

/** @type {(holds: unknown, message: string) => asserts holds} */
export function requireLayout(holds, message) {
  if (!holds) throw new LayoutError(message);
}

/**
 * @typedef {object} Segment one program header
 * @property {number} at     file offset of the header itself
 * @property {number} type   PT_*
 * @property {number} flags  PF_*
 * @property {number} offset
 * @property {number} address
 * @property {number} fileSize
 * @property {number} memorySize
 */

/** A view on an ELF file's bytes; changes go into those bytes. */
export class Elf {
  /** @param {Buffer} bytes */
  constructor(bytes) {
    requireLayout(bytes.length > 64 && bytes.readUInt32BE(0) === 0x7f454c46, 'not an ELF file');
    requireLayout(bytes[4] === 2 && bytes[5] === 1, 'not a 64-bit little-endian ELF file');
    this.bytes = bytes;
  }

  /** EM_*, see {@link EM}. */
  get machine() {
    return this.bytes.readUInt16LE(18);
  }

  /**
   * Program header, 56 bytes:
   *   0 p_type u32 | 4 p_flags u32 | 8 p_offset u64 | 16 p_vaddr u64 | 24 p_paddr u64 | 32 p_filesz u64 | 40 p_memsz u64 | 48 p_align u64
   * @returns {Segment[]}
   */
  segments() {
    const start = this.u64(32);
    return Array.from({ length: this.bytes.readUInt16LE(56) }, (_, index) => {
      const at = start + index * 56;
      return {
        at,
        type: this.bytes.readUInt32LE(at),
        flags: this.bytes.readUInt32LE(at + 4),
        offset: this.u64(at + 8),
        address: this.u64(at + 16),
        fileSize: this.u64(at + 32),
        memorySize: this.u64(at + 40),
      };
    });
  }

  /**
   * Section headers, 64 bytes each:
   *   0 sh_name u32 | 4 sh_type u32 | 8 sh_flags u64 | 16 sh_addr u64 | 24 sh_offset u64 | 32 sh_size u64
   *   | 40 sh_link u32 | 44 sh_info u32 | 48 sh_addralign u64 | 56 sh_entsize u64
   * @returns {Buffer[]} views on the file's bytes
   */
  sections() {
    const start = this.u64(40);
    return Array.from({ length: this.bytes.readUInt16LE(60) }, (_, index) =>
      this.bytes.subarray(start + index * SECTION_HEADER, start + (index + 1) * SECTION_HEADER),
    );
  }

  /** @param {Segment} segment @param {number} fileSize @param {number} [memorySize] */
  resizeSegment(segment, fileSize, memorySize = fileSize) {
    this.setU64(segment.at + 32, fileSize);
    this.setU64(segment.at + 40, memorySize);
  }

  /** Dynamic entries up to DT_NULL, 16 bytes each: d_tag i64 | d_val u64. */
  dynamic() {
    const segment = this.segments().find(({ type }) => type === PT.DYNAMIC);
    requireLayout(segment, 'no dynamic section');
    const entries = [];
    for (let at = segment.offset; this.u64(at) !== DT.NULL; at += 16) {
      entries.push({ at, tag: this.u64(at), value: this.u64(at + 8) });
    }
    return entries;
  }

  /** @param {number} tag */
  dynamicEntry(tag) {
    const entry = this.dynamic().find((candidate) => candidate.tag === tag);
    requireLayout(entry, `no dynamic entry with tag 0x${tag.toString(16)}`);
    return entry;
  }

  /** Removes an entry from the dynamic section; the following ones move up, the terminator included. @param {number} at */
  removeDynamic(at) {
    const end = (this.dynamic().at(-1)?.at ?? at) + 32;
    this.bytes.copy(this.bytes, at, at + 16, end);
  }

  /** File offset of what is loaded at `address`. @param {number} address */
  offsetOf(address) {
    const home = this.segments().find(
      (s) => s.type === PT.LOAD && address >= s.address && address < s.address + s.fileSize,
    );
    requireLayout(home, `address 0x${address.toString(16)} is not in the file`);
    return home.offset + (address - home.address);
  }

  /** A NUL-terminated string of the dynamic string table. @param {number} index */
  dynamicString(index) {
    const at = this.offsetOf(this.dynamicEntry(DT.STRTAB).value) + index;
    return this.bytes.toString('latin1', at, this.bytes.indexOf(0, at));
  }

  /** @param {number} at */
  u64(at) {
    return Number(this.bytes.readBigUInt64LE(at));
  }

  /** @param {number} at @param {number} value */
  setU64(at, value) {
    this.bytes.writeBigUInt64LE(BigInt(value), at);
  }
}

/** What the loader fills in when it has loaded the Node binary. */

/** elf.h */
const SHN_UNDEF = 0;

/**
 * @typedef {object} Relocation
 * @property {number} at     file offset of the relocation itself
 * @property {number} place  address that the loader fills in
 * @property {number} type
 * @property {number} addend
 * @property {{ index: number, name: string, type: number, defined: boolean, value: number } | undefined} symbol
 */

/**
 * Elf64_Rela, 24 bytes: 0 r_offset u64 | 8 type u32 | 12 symbol u32 | 16 r_addend i64
 * Elf64_Sym, 24 bytes:  0 st_name u32 | 4 st_info u8 (low four bits: type) | 5 st_other u8 | 6 st_shndx u16 | 8 st_value u64 | 16 st_size u64
 * @param {import('./elf.mjs').Elf} elf
 * @returns {Relocation[]}
 */
export function relocations(elf) {
  const symbols = elf.offsetOf(elf.dynamicEntry(DT.SYMTAB).value);
  const tables = [
    { table: DT.RELA, size: DT.RELASZ },
    { table: DT.JMPREL, size: DT.PLTRELSZ },
  ];
  return tables.flatMap(({ table, size }) => {
    const from = elf.offsetOf(elf.dynamicEntry(table).value);
    return Array.from({ length: elf.dynamicEntry(size).value / 24 }, (_, index) =>
      relocation(elf, from + index * 24, symbols),
    );
  });
}

/** @param {import('./elf.mjs').Elf} elf @param {number} at @param {number} symbols @returns {Relocation} */
function relocation(elf, at, symbols) {
  const index = elf.bytes.readUInt32LE(at + 12);
  const symbolAt = symbols + index * 24;
  return {
    at,
    place: elf.u64(at),
    type: elf.bytes.readUInt32LE(at + 8),
    addend: Number(elf.bytes.readBigInt64LE(at + 16)),
    symbol:
      index === 0
        ? undefined
        : {
            index,
            name: elf.dynamicString(elf.bytes.readUInt32LE(symbolAt)),
            type: elf.bytes.readUInt8(symbolAt + 4) & 15,
            defined: elf.bytes.readUInt16LE(symbolAt + 6) !== SHN_UNDEF,
            value: elf.u64(symbolAt + 8),
          },
  };
}

/** Unused space in the Node binary's pages, for a small function. */

const PAGE = 4096;

/**
 * Zeros between the end of the executable segment and the end of its page, in the file as in memory.
 * @param {import('./elf.mjs').Elf} elf @param {number} size
 * @returns {{ offset: number, address: number, take(): void }} `take` makes the segment reach over them
 */
export function spaceForCode(elf, size) {
  const segments = elf.segments();
  const segment = segments.find(({ type, flags }) => type === PT.LOAD && (flags & PF_X) !== 0);
  requireLayout(segment && segment.fileSize === segment.memorySize, 'no plain executable segment');
  const end = segment.offset + segment.fileSize;
  const padding = -end & 15;
  const offset = end + padding;
  const pageEnd = Math.ceil(end / PAGE) * PAGE;
  requireLayout(offset + size <= pageEnd, 'no space for the stub behind the executable segment');
  requireLayout(
    segments.every(
      (other) => other.type !== PT.LOAD || other.offset <= segment.offset || other.offset >= pageEnd,
    ),
    'another segment begins in the page of the stub',
  );
  requireLayout(
    elf.bytes.subarray(end, offset + size).every((byte) => byte === 0),
    'the space for the stub is in use',
  );
  return {
    offset,
    address: segment.address + segment.fileSize + padding,
    take: () => elf.resizeSegment(segment, segment.fileSize + padding + size),
  };
}
