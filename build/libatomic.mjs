import { DF_BIND_NOW, DT, LayoutError, requireLayout, relocations, spaceForCode } from './elf.mjs';

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

const LIBRARY = 'libatomic.so.1';
const SYMBOL = '__atomic_compare_exchange';
const SHT_GNU_VERNEED = 0x6ffffffe;

/**
 * Changes the image in place.
 * @param {import('./elf.mjs').Elf} elf
 * @returns {{ needed: boolean, stubAddress?: number }} needed: whether the binary wanted the library at all
 * @throws {import('./elf.mjs').LayoutError} when the binary is not laid out as described above; nothing has been changed then
 */
export function withoutLibatomic(elf) {
  const library = elf
    .dynamic()
    .find(({ tag, value }) => tag === DT.NEEDED && elf.dynamicString(value) === LIBRARY);
  if (library === undefined) return { needed: false };
  const machine = MACHINES[elf.machine];
  requireLayout(machine, `needs ${LIBRARY}, and no stub is written for machine ${elf.machine}`);
  requireLayout((elf.dynamicEntry(DT.FLAGS).value & DF_BIND_NOW) !== 0, 'not linked BIND_NOW');
  const needs = findVersionNeeds(elf);
  const relocation = findRelocation(elf, needs.versionIndex, machine.jumpSlot);
  const space = spaceForCode(elf, machine.stub.length);

  machine.stub.copy(elf.bytes, space.offset);
  space.take();
  elf.setU64(relocation.at + 8, machine.relative);
  elf.setU64(relocation.at + 16, space.address);
  elf.bytes.writeUInt16LE(1, relocation.versionAt);
  unlinkVersionNeeds(elf, needs);
  elf.removeDynamic(library.at);
  return { needed: true, stubAddress: space.address };
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
      requireLayout(elf.bytes.readUInt16LE(at + 2) === 1, `more than one version of ${LIBRARY} is needed`);
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
  requireLayout(
    found.length === 1 && only,
    `${found.length} relocations against ${LIBRARY} where one was expected`,
  );
  requireLayout(only.type === jumpSlot, 'not a jump slot relocation');
  requireLayout(
    only.symbol.name === SYMBOL,
    `${LIBRARY} is needed for ${only.symbol.name}, not for ${SYMBOL}`,
  );
  return only;
}

/**
 * The one function of libatomic that Node calls, as machine code:
 *
 *   bool __atomic_compare_exchange(size_t size, void *object, void *expected, void *desired, int success, int failure)
 *
 * If the `size` bytes at `object` equal those at `expected`, they become those at `desired`, and the result is 1; else they are copied
 * to `expected`, and the result is 0; all in one indivisible step. Both stubs are sequentially consistent whatever the memory orders
 * asked for. A size other than 1, 2, 4, 8, 16 is a bug of the caller, not something to guess about: an undefined instruction.
 * Each line is: code, offset, label, instruction.
 */

/** EM_X86_64. System V AMD64: rdi size, rsi object, rdx expected, rcx desired. Only 16 bytes must be aligned (cmpxchg16b). */
const X64 = [
  'f3 0f 1e fa     00      endbr64',
  '48 83 ff 08     04      cmp rdi, 8',
  '74 1a           08      je L8',
  '48 83 ff 04     0a      cmp rdi, 4',
  '74 26           0e      je L4',
  '48 83 ff 02     10      cmp rdi, 2',
  '74 2e           14      je L2',
  '48 83 ff 01     16      cmp rdi, 1',
  '74 3a           1a      je L1',
  '48 83 ff 10     1c      cmp rdi, 16',
  '74 45           20      je L16',
  '0f 0b           22      ud2',
  '48 8b 02        24 L8:  mov rax, [rdx]',
  '48 8b 09        27      mov rcx, [rcx]',
  'f0 48 0f b1 0e  2a      lock cmpxchg qword [rsi], rcx',
  '74 59           2f      je yes',
  '48 89 02        31      mov [rdx], rax',
  'eb 2e           34      jmp no',
  '8b 02           36 L4:  mov eax, [rdx]',
  '8b 09           38      mov ecx, [rcx]',
  'f0 0f b1 0e     3a      lock cmpxchg dword [rsi], ecx',
  '74 4a           3e      je yes',
  '89 02           40      mov [rdx], eax',
  'eb 20           42      jmp no',
  '0f b7 02        44 L2:  movzx eax, word [rdx]',
  '0f b7 09        47      movzx ecx, word [rcx]',
  '66 f0 0f b1 0e  4a      lock cmpxchg word [rsi], cx',
  '74 39           4f      je yes',
  '66 89 02        51      mov [rdx], ax',
  'eb 0e           54      jmp no',
  '0f b6 02        56 L1:  movzx eax, byte [rdx]',
  '0f b6 09        59      movzx ecx, byte [rcx]',
  'f0 0f b0 0e     5c      lock cmpxchg byte [rsi], cl',
  '74 28           60      je yes',
  '88 02           62      mov [rdx], al',
  '31 c0           64 no:  xor eax, eax',
  'c3              66      ret',
  '53              67 L16: push rbx',
  '49 89 d0        68      mov r8, rdx',
  '49 8b 00        6b      mov rax, [r8]',
  '49 8b 50 08     6e      mov rdx, [r8 + 8]',
  '48 8b 19        72      mov rbx, [rcx]',
  '48 8b 49 08     75      mov rcx, [rcx + 8]',
  'f0 48 0f c7 0e  79      lock cmpxchg16b [rsi]',
  '5b              7e      pop rbx                        (leaves the flags)',
  '74 09           7f      je yes',
  '49 89 00        81      mov [r8], rax',
  '49 89 50 08     84      mov [r8 + 8], rdx',
  'eb da           88      jmp no',
  'b8 01 00 00 00  8a yes: mov eax, 1',
  'c3              8f      ret',
];

/** EM_AARCH64, ARMv8.0. AAPCS64: x0 size, x1 object, x2 expected, x3 desired. Objects must be aligned, as exclusive loads requireLayout. */
const ARM64 = [
  'd503245f    0          bti c',
  'f100201f    4          cmp x0, #8',
  '54000140    8          b.eq L8',
  'f100101f    c          cmp x0, #4',
  '54000240   10          b.eq L4',
  'f100081f   14          cmp x0, #2',
  '54000340   18          b.eq L2',
  'f100041f   1c          cmp x0, #1',
  '54000440   20          b.eq L1',
  'f100401f   24          cmp x0, #16',
  '54000580   28          b.eq L16',
  '00000000   2c          udf #0',
  'f9400046   30 L8:      ldr x6, [x2]',
  'f9400067   34          ldr x7, [x3]',
  'c85ffc28   38 again8:  ldaxr x8, [x1]',
  'eb06011f   3c          cmp x8, x6',
  '54000081   40          b.ne not8',
  'c809fc27   44          stlxr w9, x7, [x1]',
  '35ffff89   48          cbnz w9, again8',
  '14000030   4c          b yes',
  'f9000048   50 not8:    str x8, [x2]',
  '1400001e   54          b no',
  'b9400046   58 L4:      ldr w6, [x2]',
  'b9400067   5c          ldr w7, [x3]',
  '885ffc28   60 again4:  ldaxr w8, [x1]',
  '6b06011f   64          cmp w8, w6',
  '54000081   68          b.ne not4',
  '8809fc27   6c          stlxr w9, w7, [x1]',
  '35ffff89   70          cbnz w9, again4',
  '14000026   74          b yes',
  'b9000048   78 not4:    str w8, [x2]',
  '14000014   7c          b no',
  '79400046   80 L2:      ldrh w6, [x2]',
  '79400067   84          ldrh w7, [x3]',
  '485ffc28   88 again2:  ldaxrh w8, [x1]',
  '6b06011f   8c          cmp w8, w6',
  '54000081   90          b.ne not2',
  '4809fc27   94          stlxrh w9, w7, [x1]',
  '35ffff89   98          cbnz w9, again2',
  '1400001c   9c          b yes',
  '79000048   a0 not2:    strh w8, [x2]',
  '1400000a   a4          b no',
  '39400046   a8 L1:      ldrb w6, [x2]',
  '39400067   ac          ldrb w7, [x3]',
  '085ffc28   b0 again1:  ldaxrb w8, [x1]',
  '6b06011f   b4          cmp w8, w6',
  '54000081   b8          b.ne not1',
  '0809fc27   bc          stlxrb w9, w7, [x1]',
  '35ffff89   c0          cbnz w9, again1',
  '14000012   c4          b yes',
  '39000048   c8 not1:    strb w8, [x2]',
  'd5033f5f   cc no:      clrex',
  '52800000   d0          mov w0, #0',
  'd65f03c0   d4          ret',
  'a9401c46   d8 L16:     ldp x6, x7, [x2]',
  'a9402468   dc          ldp x8, x9, [x3]',
  'c87fac2a   e0 again16: ldaxp x10, x11, [x1]',
  'eb06015f   e4          cmp x10, x6',
  'fa470160   e8          ccmp x11, x7, #0, eq',
  '54000081   ec          b.ne not16',
  'c82ca428   f0          stlxp w12, x8, x9, [x1]',
  '35ffff6c   f4          cbnz w12, again16',
  '14000005   f8          b yes',
  'c82cac2a   fc not16:   stlxp w12, x10, x11, [x1]',
  '35ffff0c  100          cbnz w12, again16',
  'a9002c4a  104          stp x10, x11, [x2]',
  '17fffff1  108          b no',
  '52800020  10c yes:     mov w0, #1',
  'd65f03c0  110          ret',
];

/**
 * By e_machine: the stub, and the types of the relocations before and after it (elf.h).
 * @type {Readonly<Record<number, { stub: Buffer, jumpSlot: number, relative: number } | undefined>>}
 */
export const MACHINES = {
  62: { stub: bytes(X64), jumpSlot: 7, relative: 8 },
  183: { stub: words(ARM64), jumpSlot: 1026, relative: 1027 },
};

/** @param {readonly string[]} listing of bytes in the order of memory */
function bytes(listing) {
  return Buffer.from(listing.map((line) => line.slice(0, 14).replaceAll(' ', '')).join(''), 'hex');
}

/** @param {readonly string[]} listing of little-endian 32-bit words */
function words(listing) {
  return Buffer.concat(listing.map((line) => Buffer.from(line.slice(0, 8), 'hex').reverse()));
}
