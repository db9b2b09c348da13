/** Where the symbols of the Node binary stand; only before it is stripped. */
import { demand } from './elf.mjs';

const SHT_SYMTAB = 2;

/**
 * Symbol, 24 bytes: 0 st_name u32 | 4 st_info u8 | 5 st_other u8 | 6 st_shndx u16 | 8 st_value u64 | 16 st_size u64
 * @param {import('./elf.mjs').Elf} elf @param {string} name mangled
 * @returns {number} its address
 * @throws {import('./elf.mjs').LayoutError} when there is none
 */
export function symbolAddress(elf, name) {
  const sections = elf.sections();
  const table = sections.find((section) => section.readUInt32LE(4) === SHT_SYMTAB);
  demand(table, 'no symbol table');
  const names = sections[table.readUInt32LE(40)];
  demand(names, 'no names of symbols');
  const from = Number(names.readBigUInt64LE(24));
  const at = elf.bytes.indexOf(`\0${name}\0`, from, 'latin1');
  demand(at > 0 && at < from + Number(names.readBigUInt64LE(32)), `${name} is not in the binary`);
  const [start, size] = [24, 32].map((field) => Number(table.readBigUInt64LE(field)));
  for (let symbol = start ?? 0; symbol < (start ?? 0) + (size ?? 0); symbol += 24) {
    if (elf.bytes.readUInt32LE(symbol) === at + 1 - from) return elf.u64(symbol + 8);
  }
  demand(false, `${name} has no address`);
  return 0;
}
