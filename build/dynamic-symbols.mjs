/**
 * Fewer names for the loader to look up. The Node binary exports 46,000 symbols, for native add-ons, of which a plugin loads none. Each of the
 * 3,500 names that the binary and the C++ library refer to is searched there first, in a table whose filter is so full that it lets every
 * name through: half a millisecond of every start. Two things are changed:
 *
 * - What the binary refers to in itself needs no search: | R_…_GLOB_DAT symbol | becomes | R_…_RELATIVE 0 | its address |.
 * - The filter is made anew, for those names only that libraries must go on finding in the binary: those of the C++ library (some of its
 *   objects exist once in a process, and the first definition counts), data that was copied into it (`stdout`), functions whose address is
 *   that of the binary's way to them (`free`), and what the binary looks up in itself by other relocations. (It also hides Node's OpenSSL from libraries of the host that bring their own.)
 *
 *   DT_GNU_HASH | nbuckets u32 | symoffset u32 | words u32 | shift u32 | filter u64[words] | buckets u32[nbuckets] | chains u32[] |
 *
 * The new filter is smaller, and the table begins later, so that buckets and chains stay where they are.
 */
import { DT, EM, R_X86_64, SHN_UNDEF, requireLayout, relocations } from './elf.mjs';

const STT_GNU_IFUNC = 10;
/** std::, __gnu_cxx::, __cxxabiv1:: with their tables, guards and type names; operators new and delete; types of the language itself. */
const CPLUSPLUS =
  /^_Z(?:(?:T[ISVT]|GV)?N?K?(?:S[tasbiod]|9__gnu_cxx|10__cxxabiv1)|n[wa]|d[la]|T[ISV]P?K?[a-z]$)/;
const WORDS = 256;

/**
 * Changes the image in place.
 * @param {import('./elf.mjs').Elf} elf
 * @throws {import('./elf.mjs').LayoutError} when the binary is not laid out as described above; nothing has been changed then
 */
export function reduceSymbolLookups(elf) {
  requireLayout(elf.machine === EM.X86_64, `not written for machine ${elf.machine}`);
  const table = hashTable(elf);
  const own = relocations(elf).filter(({ symbol }) => symbol !== undefined && symbol.defined);
  const direct = own.filter(({ type, symbol }) => DIRECT.has(type) && symbol?.type !== STT_GNU_IFUNC);
  const searched = own.filter((one) => !direct.includes(one)).map(({ symbol }) => symbol?.name ?? '');
  const names = new Set([...searched, ...table.exported.filter(staysFound).map(({ name }) => name)]);

  for (const { at, type, symbol, addend } of direct) {
    elf.setU64(at + 8, R_X86_64.RELATIVE);
    elf.setU64(at + 16, (symbol?.value ?? 0) + (type === R_X86_64.ABSOLUTE ? addend : 0));
  }
  writeTable(elf, table, names);
}

const DIRECT = new Set([R_X86_64.ABSOLUTE, R_X86_64.GLOB_DAT, R_X86_64.JUMP_SLOT]);

/**
 * @typedef {object} HashTable
 * @property {number} entryAt file offset of its dynamic entry
 * @property {number} address
 * @property {number} at      file offset
 * @property {number} words   of its filter
 * @property {readonly Exported[]} exported
 *
 * @typedef {{ name: string, defined: boolean }} Exported
 */

/** Undefined and yet exported: where the binary took the address of a library's function. @param {Exported} symbol */
function staysFound({ name, defined }) {
  return !defined || CPLUSPLUS.test(name);
}

/** @param {import('./elf.mjs').Elf} elf @returns {HashTable} */
function hashTable(elf) {
  const { at: entryAt, value: address } = elf.dynamicEntry(DT.GNU_HASH);
  const at = elf.offsetOf(address);
  const [buckets = 0, first = 0, words = 0] = [0, 4, 8].map((field) => elf.bytes.readUInt32LE(at + field));
  requireLayout(words * 8 >= WORDS * 8 + 16, `a filter of ${words} words leaves no space for the new one`);
  const bucketsAt = at + 16 + words * 8;
  const chainsAt = bucketsAt + buckets * 4 - first * 4;
  let last = Math.max(
    ...Array.from({ length: buckets }, (_, index) => elf.bytes.readUInt32LE(bucketsAt + index * 4)),
  );
  // The lowest bit marks the end of a chain, and the last chain ends with the last symbol.
  while ((elf.bytes.readUInt32LE(chainsAt + last * 4) & 1) === 0) last += 1;
  const symbols = elf.offsetOf(elf.dynamicEntry(DT.SYMTAB).value);
  const exported = Array.from({ length: last + 1 - first }, (_, index) => {
    const symbol = symbols + (first + index) * 24;
    return {
      name: elf.dynamicString(elf.bytes.readUInt32LE(symbol)),
      defined: elf.bytes.readUInt16LE(symbol + 6) !== SHN_UNDEF,
    };
  });
  return { entryAt, address, at, words, exported };
}

/** @param {import('./elf.mjs').Elf} elf @param {HashTable} table @param {Iterable<string>} names */
function writeTable(elf, { entryAt, address, at, words }, names) {
  const shift = elf.bytes.readUInt32LE(at + 12);
  const moved = (words - WORDS) * 8;
  const filter = Array.from({ length: WORDS }, () => 0n);
  for (const name of names) {
    const hash = gnuHash(name);
    const word = Math.floor(hash / 64) % WORDS;
    filter[word] = (filter[word] ?? 0n) | (1n << BigInt(hash % 64)) | (1n << BigInt((hash >>> shift) % 64));
  }
  elf.bytes.copy(elf.bytes, at + moved, at, at + 16);
  elf.bytes.writeUInt32LE(WORDS, at + moved + 8);
  filter.forEach((word, index) => elf.bytes.writeBigUInt64LE(word, at + moved + 16 + index * 8));
  elf.setU64(entryAt + 8, address + moved);
}

/** @param {string} name */
function gnuHash(name) {
  let hash = 5381;
  for (const byte of Buffer.from(name)) hash = (Math.imul(hash, 33) + byte) >>> 0;
  return hash;
}
