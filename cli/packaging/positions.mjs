/**
 * Node asks V8 at every start for exact source positions in profiles, and V8 walks the whole heap for functions that lack them: 5 % of a start.
 * A plugin is never profiled, and positions for the stack of an error are found when they are needed. The walk becomes a return:
 *
 *   x64    55 48 89 e5   push %rbp; mov %rsp,%rbp   ->  c3 48 89 e5   ret
 *   arm64  the function's first instruction          ->  c0 03 5f d6   ret
 */
import { demand } from './elf.mjs';

/** void v8::internal::Isolate::CollectSourcePositionsForAllBytecodeArrays() */
const WALK = '_ZN2v88internal7Isolate42CollectSourcePositionsForAllBytecodeArraysEv';
const EM_X86_64 = 62;
const EM_AARCH64 = 183;
const SHT_SYMTAB = 2;

/**
 * Changes the image in place. Before symbols are stripped.
 * @param {import('./elf.mjs').Elf} elf
 * @throws {import('./elf.mjs').LayoutError} when the function is not there or begins otherwise; nothing has been changed then
 */
export function skipPositions(elf) {
  const at = elf.offsetOf(addressOf(elf, WALK));
  if (elf.machine === EM_X86_64) {
    demand(
      elf.bytes.readUInt32BE(at) === 0x554889e5,
      'the walk for source positions begins with other instructions',
    );
    elf.bytes.writeUInt8(0xc3, at);
  } else {
    demand(elf.machine === EM_AARCH64, `machine ${elf.machine} is not known here`);
    elf.bytes.writeUInt32LE(0xd65f03c0, at);
  }
}

/**
 * Symbol, 24 bytes: 0 st_name u32 | 4 st_info u8 | 5 st_other u8 | 6 st_shndx u16 | 8 st_value u64 | 16 st_size u64
 * @param {import('./elf.mjs').Elf} elf @param {string} name
 */
function addressOf(elf, name) {
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
