/**
 * Frees the Node binary of libatomic.so.1, which minimal Debian, Ubuntu and RHEL-like systems do not have.
 *
 * The binaries on npm need it for one function, `__atomic_compare_exchange`, reached through one relocation. (V8 calls it, always with
 * size 8, whenever it allocates an entry of its JavaScript dispatch table and of its WebAssembly code pointer table;
 * a gcc that took a {u32, u32} struct for possibly misaligned emitted a library call in place of one instruction.)
 * The function is written into the unused rest of the last page of the executable segment, the relocation is pointed at it,
 * and the library's entries leave the dynamic section and the version needs:
 *
 *   LOAD r-x   | .init .plt .text … .fini |>> stub <<| zeros |      p_filesz and p_memsz grow by the stub
 *   .rela.plt  | r_offset = GOT slot | R_…_JUMP_SLOT symbol | 0 |  becomes
 *              | r_offset = GOT slot | R_…_RELATIVE  0      | address of stub |
 *   .dynamic   | NEEDED libatomic.so.1 |  removed;  VERNEEDNUM one less
 *
 * The binary is linked BIND_NOW and at a fixed address, so the loader applies that relocation before main with base 0.
 */
import { MACHINES } from './atomic-stubs.mjs';
import { DF_BIND_NOW, DT, LayoutError, demand } from './elf.mjs';
import { relocations } from './relocations.mjs';
import { roomForCode } from './room.mjs';

const LIBRARY = 'libatomic.so.1';
const SYMBOL = '__atomic_compare_exchange';
const SHT_GNU_VERNEED = 0x6ffffffe;

/**
 * Changes the image in place.
 * @param {import('./elf.mjs').Elf} elf
 * @returns {{ needed: boolean, stubAddress?: number }} needed: whether the binary wanted the library at all
 * @throws {import('./elf.mjs').LayoutError} when the binary is not laid out as described above; nothing has been changed then
 */
export function freeOfLibatomic(elf) {
  const library = elf
    .dynamic()
    .find(({ tag, value }) => tag === DT.NEEDED && elf.dynamicString(value) === LIBRARY);
  if (library === undefined) return { needed: false };
  const machine = MACHINES[elf.machine];
  demand(machine, `needs ${LIBRARY}, and no stub is written for machine ${elf.machine}`);
  demand((elf.dynamicEntry(DT.FLAGS).value & DF_BIND_NOW) !== 0, 'not linked BIND_NOW');
  const needs = findVersionNeeds(elf);
  const relocation = findRelocation(elf, needs.versionIndex, machine.jumpSlot);
  const room = roomForCode(elf, machine.stub.length);

  machine.stub.copy(elf.bytes, room.offset);
  room.take();
  elf.setU64(relocation.at + 8, machine.relative);
  elf.setU64(relocation.at + 16, room.address);
  elf.bytes.writeUInt16LE(1, relocation.versionAt);
  unlinkVersionNeeds(elf, needs);
  elf.removeDynamic(library.at);
  return { needed: true, stubAddress: room.address };
}

/**
 * The library's entry in the chain of version needs, which must name exactly one version.
 *   Elf64_Verneed: 0 vn_version u16 | 2 vn_cnt u16 | 4 vn_file u32 | 8 vn_aux u32 | 12 vn_next u32
 *   Elf64_Vernaux: 0 vna_hash u32 | 4 vna_flags u16 | 6 vna_other u16 | 8 vna_name u32 | 12 vna_next u32
 * @param {import('./elf.mjs').Elf} elf
 */
function findVersionNeeds(elf) {
  let previous;
  let at = elf.offsetOf(elf.dynamicEntry(DT.VERNEED).value);
  for (let left = elf.dynamicEntry(DT.VERNEEDNUM).value; left > 0; left -= 1) {
    const next = elf.bytes.readUInt32LE(at + 12);
    if (elf.dynamicString(elf.bytes.readUInt32LE(at + 4)) === LIBRARY) {
      demand(elf.bytes.readUInt16LE(at + 2) === 1, `more than one version of ${LIBRARY} is needed`);
      const aux = at + elf.bytes.readUInt32LE(at + 8);
      return { previous, next, versionIndex: elf.bytes.readUInt16LE(aux + 6) };
    }
    previous = at;
    at += next;
  }
  throw new LayoutError(`${LIBRARY} is needed without a version`);
}

/** @param {import('./elf.mjs').Elf} elf @param {{ previous: number | undefined, next: number }} needs */
function unlinkVersionNeeds(elf, { previous, next }) {
  if (previous === undefined) {
    const first = elf.dynamicEntry(DT.VERNEED);
    elf.setU64(first.at + 8, first.value + next);
  } else {
    const before = elf.bytes.readUInt32LE(previous + 12);
    elf.bytes.writeUInt32LE(next === 0 ? 0 : before + next, previous + 12);
  }
  const count = elf.dynamicEntry(DT.VERNEEDNUM);
  elf.setU64(count.at + 8, count.value - 1);
  shortenVersionSection(elf, previous === undefined ? next : 0);
}

/**
 * The loader does not read section headers; tools that list a file's needs (rpm, dpkg-shlibdeps) do.
 * Section header: 4 sh_type u32 | 16 sh_addr u64 | 24 sh_offset u64 | 32 sh_size u64 | 44 sh_info u32 (number of entries)
 * @param {import('./elf.mjs').Elf} elf @param {number} bytes that the section loses at its front
 */
function shortenVersionSection(elf, bytes) {
  const start = elf.u64(40);
  for (let at = start; at < start + elf.bytes.readUInt16LE(60) * 64; at += 64) {
    if (elf.bytes.readUInt32LE(at + 4) !== SHT_GNU_VERNEED) continue;
    elf.setU64(at + 16, elf.u64(at + 16) + bytes);
    elf.setU64(at + 24, elf.u64(at + 24) + bytes);
    elf.setU64(at + 32, elf.u64(at + 32) - bytes);
    elf.bytes.writeUInt32LE(elf.bytes.readUInt32LE(at + 44) - 1, at + 44);
  }
}

/**
 * The one relocation against a symbol of that version, and where the symbol's version stands.
 * @param {import('./elf.mjs').Elf} elf @param {number} versionIndex @param {number} jumpSlot
 */
function findRelocation(elf, versionIndex, jumpSlot) {
  const versions = elf.offsetOf(elf.dynamicEntry(DT.VERSYM).value);
  const found = relocations(elf).flatMap(({ at, type, symbol }) => {
    if (symbol === undefined) return [];
    const versionAt = versions + symbol.index * 2;
    return elf.bytes.readUInt16LE(versionAt) === versionIndex ? [{ at, type, symbol, versionAt }] : [];
  });
  const [only] = found;
  demand(found.length === 1 && only, `${found.length} relocations against ${LIBRARY} where one was expected`);
  demand(only.type === jumpSlot, 'not a jump slot relocation');
  demand(only.symbol.name === SYMBOL, `${LIBRARY} is needed for ${only.symbol.name}, not for ${SYMBOL}`);
  return only;
}
