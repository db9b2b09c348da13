/** What the loader fills in when it has loaded the Node binary. */
import { demand, DT } from './elf.mjs';

/** elf.h */
export const R_X86_64 = { ABSOLUTE: 1, GLOB_DAT: 6, JUMP_SLOT: 7, RELATIVE: 8 };
export const SHN_UNDEF = 0;

/**
 * @typedef {object} Relocation
 * @property {number} at     file offset of the relocation itself
 * @property {number} place  address of what is filled in
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

/**
 * The one of a type against a function.
 * @param {readonly Relocation[]} all @param {string} name @param {number} type
 * @throws {import('./elf.mjs').LayoutError} when there are none or several
 */
export function onlyRelocation(all, name, type) {
  const found = all.filter((one) => one.type === type && one.symbol?.name === name);
  const [first] = found;
  demand(
    found.length === 1 && first,
    `${found.length} relocations of type ${type} against ${name} where one was expected`,
  );
  return first;
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
