import {
  DF_BIND_NOW,
  DT,
  EM,
  R_X86_64,
  requireLayout,
  onlyRelocation,
  relocations,
  spaceForCode,
  spaceForData,
} from './elf.mjs';

/**
 * Huge pages for V8's heap. V8 gets its memory in pieces of 256 KiB, each mapped by itself, and the kernel hands it out 4 KiB at a time: 2,000
 * page faults, a fifth of a start. Here the pieces come one after the other from one stretch of 32 MiB for which huge pages are asked
 * (MADV_HUGEPAGE; where the administrator has set /sys/kernel/mm/transparent_hugepage to `never`, it is as it was).
 *
 * Node's calls of mmap(2) and munmap(2) go to the code below, each through one relocation, as in libatomic.mjs; there is another one with the
 * address of the C library's own function, to which everything goes that is not such a piece:
 *
 *   .rela.plt  | GOT slot | R_…_JUMP_SLOT mmap64 | 0 |  becomes  | GOT slot | R_…_RELATIVE 0 | address of the code |
 *   .rela.dyn  | GOT slot | R_…_GLOB_DAT  mmap64 | 0 |  stays: the code jumps through it
 *
 * What V8 does for a piece (base::OS::Allocate): it maps 508 KiB at a hint that is a multiple of 256 KiB, and unmaps what is not the first
 * aligned 256 KiB. The code answers with the next piece of the stretch, which is aligned, and ignores that the rest behind it is unmapped, as
 * that is the next piece. Pieces given back are really unmapped, and not used again; when the stretch is used up, mmap(2) does its work as ever.
 *
 *   bss        | next u64: 0 nothing is reserved yet, 1 being reserved or refused, else where the next piece is | end u64 |
 */

/** System V AMD64: rdi address, rsi length, edx protection, ecx flags, r8 and r9 the rest; may change rax, rcx, rdx, r10, r11. */
const X64 = [
  'f3 0f 1e fa           000 mmap:   endbr64',
  '48 81 fe 00 f0 07 00  004         cmp rsi, 508 KiB',
  '0f 85 f8 00 00 00     00b         jne libc',
  '83 fa 03              011         cmp edx, PROT_READ | PROT_WRITE',
  '0f 85 ef 00 00 00     014         jne libc',
  '83 f9 22              01a         cmp ecx, MAP_PRIVATE | MAP_ANONYMOUS',
  '0f 85 e6 00 00 00     01d         jne libc',
  '48 85 ff              023         test rdi, rdi',
  '0f 84 dd 00 00 00     026         je libc',
  'f7 c7 ff ff 03 00     02c         test edi, 256 KiB - 1',
  '0f 85 d1 00 00 00     032         jne libc',
  '48 8b 05 [next]       038         mov rax, [next]',
  '48 83 f8 01           03f         cmp rax, 1',
  '72 22                 043         jb start',
  '0f 84 be 00 00 00     045         je libc',
  'b8 00 00 04 00        04b take:   mov eax, 256 KiB',
  'f0 48 0f c1 05 [next] 050         lock xadd [next], rax',
  '48 3b 05 [end]        059         cmp rax, [end]',
  '0f 83 a3 00 00 00     060         jae libc',
  'c3                    066         ret',
  '41 ba 01 00 00 00     067 start:  mov r10d, 1',
  'f0 4c 0f b1 15 [next] 06d         lock cmpxchg [next], r10        (another thread began: this once without)',
  '0f 85 8d 00 00 00     076         jne libc',
  '57                    07c         push rdi',
  '56                    07d         push rsi',
  '41 50                 07e         push r8',
  '41 51                 080         push r9',
  'be 00 00 24 02        082         mov esi, 32 MiB + 2 MiB + 256 KiB  (to align it; for what is unmapped behind the last piece)',
  '41 ba 22 40 00 00     087         mov r10d, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE',
  '49 83 c8 ff           08d         or r8, -1',
  '45 31 c9              091         xor r9d, r9d',
  'b8 09 00 00 00        094         mov eax, SYS_mmap               (at the hint: with the seed of the build it is the same each time)',
  '0f 05                 099         syscall',
  '48 3d 00 f0 ff ff     09b         cmp rax, -4096',
  '77 48                 0a1         ja done                         (refused: `next` stays 1)',
  '48 8d b8 ff ff 1f 00  0a3         lea rdi, [rax + 2 MiB - 1]',
  '48 81 e7 00 00 e0 ff  0aa         and rdi, -2 MiB',
  '49 89 f8              0b1         mov r8, rdi',
  'be 00 00 00 02        0b4         mov esi, 32 MiB',
  'ba 0e 00 00 00        0b9         mov edx, MADV_HUGEPAGE',
  'b8 1c 00 00 00        0be         mov eax, SYS_madvise',
  '0f 05                 0c3         syscall',
  'be 00 00 04 02        0c5         mov esi, 32 MiB + 256 KiB',
  'ba 0a 00 00 00        0ca         mov edx, MADV_DONTFORK          (as V8 does for each piece)',
  'b8 1c 00 00 00        0cf         mov eax, SYS_madvise',
  '0f 05                 0d4         syscall',
  '49 8d 80 00 00 00 02  0d6         lea rax, [r8 + 32 MiB]',
  '48 89 05 [end]        0dd         mov [end], rax                  (stores are seen in this order)',
  '4c 89 05 [next]       0e4         mov [next], r8',
  '41 59                 0eb done:   pop r9',
  '41 58                 0ed         pop r8',
  '5e                    0ef         pop rsi',
  '5f                    0f0         pop rdi',
  'ba 03 00 00 00        0f1         mov edx, PROT_READ | PROT_WRITE',
  'b9 22 00 00 00        0f6         mov ecx, MAP_PRIVATE | MAP_ANONYMOUS',
  '48 83 3d [next] 01    0fb         cmp qword [next], 1',
  '0f 85 42 ff ff ff     103         jne take',
  'ff 25 [mmap64]        109 libc:   jmp [mmap64]',
  'f3 0f 1e fa           10f munmap: endbr64',
  '48 81 fe 00 f0 03 00  113         cmp rsi, 508 KiB - 256 KiB',
  '75 15                 11a         jne libc2',
  '48 8b 05 [end]        11c         mov rax, [end]',
  '48 29 f8              123         sub rax, rdi',
  '48 3d 00 00 00 02     126         cmp rax, 32 MiB                 (at most 32 MiB before the end, or at it: behind a piece)',
  '73 03                 12c         jae libc2',
  '31 c0                 12e         xor eax, eax',
  'c3                    130         ret',
  'ff 25 [munmap]        131 libc2:  jmp [munmap]',
];
const ENTRIES = { mmap64: 0, munmap: 0x10f };

/**
 * Changes the image in place.
 * @param {import('./elf.mjs').Elf} elf
 * @throws {import('./elf.mjs').LayoutError} when the binary is not laid out as described above; nothing has been changed then
 */
export function useHugePages(elf) {
  requireLayout(elf.machine === EM.X86_64, `no code is written for machine ${elf.machine}`);
  requireLayout((elf.dynamicEntry(DT.FLAGS).value & DF_BIND_NOW) !== 0, 'not linked BIND_NOW');
  const all = relocations(elf);
  const slots = /** @type {const} */ (['mmap64', 'munmap']).map((name) => ({
    name,
    call: onlyRelocation(all, name, R_X86_64.JUMP_SLOT).at,
    own: onlyRelocation(all, name, R_X86_64.GLOB_DAT).place,
  }));
  const data = spaceForData(elf, 16);
  const places = { next: data.address, end: data.address + 8 };
  const known = { ...places, ...Object.fromEntries(slots.map(({ name, own }) => [name, own])) };
  const space = spaceForCode(elf, assemble(X64, known, 0).length);

  assemble(X64, known, space.address).copy(elf.bytes, space.offset);
  space.take();
  data.take();
  for (const { name, call } of slots) {
    elf.setU64(call + 8, R_X86_64.RELATIVE);
    elf.setU64(call + 16, space.address + ENTRIES[name]);
  }
}

/**
 * Huge pages for malloc. A start allocates 5 MB with malloc, in pages of 4 KiB: a thousand page faults, a twelfth of a start. Before the first
 * constructor of the binary runs, the code below makes the C library's heap 8 MiB longer, and asks for huge pages for it (madvise(2)):
 *
 * - malloc(8 MiB), free: it was mapped by itself; when such a block is freed, glibc maps only larger ones from then on, and gives the heap's
 *   end back to the kernel only beyond twice as much (M_MMAP_THRESHOLD and M_TRIM_THRESHOLD are dynamic, mallopt(3));
 * - malloc(a little less): so it comes from the heap, which grows for it (brk(2)); madvise; free: the heap stays as long as it is.
 *
 * With another malloc than glibc's, the block is only allocated and freed. It is entered by the first slot of | .init_array | address u64 ... |,
 * and goes on to where that led.
 */

/** System V AMD64: edi, rsi, rdx are main's arguments; three pushes leave the stack aligned for calls. */
const MALLOC_X64 = [
  'f3 0f 1e fa           00        endbr64',
  '57                    04        push rdi',
  '56                    05        push rsi',
  '52                    06        push rdx',
  'bf 00 00 80 00        07        mov edi, 8 MiB',
  'ff 15 [malloc]        0c        call [malloc]',
  '48 89 c7              12        mov rdi, rax',
  'ff 15 [free]          15        call [free]',
  'bf 00 00 7f 00        1b        mov edi, 8 MiB - 64 KiB',
  'ff 15 [malloc]        20        call [malloc]',
  '48 85 c0              26        test rax, rax',
  '74 2b                 29        je done',
  '49 89 c0              2b        mov r8, rax',
  '48 8d b8 ff 0f 00 00  2e        lea rdi, [rax + 4095]',
  '48 81 e7 00 f0 ff ff  35        and rdi, -4096',
  'be 00 00 7e 00        3c        mov esi, 8 MiB - 128 KiB',
  'ba 0e 00 00 00        41        mov edx, MADV_HUGEPAGE',
  'b8 1c 00 00 00        46        mov eax, SYS_madvise',
  '0f 05                 4b        syscall',
  '4c 89 c7              4d        mov rdi, r8',
  'ff 15 [free]          50        call [free]',
  '5a                    56 done:  pop rdx',
  '5e                    57        pop rsi',
  '5f                    58        pop rdi',
  'e9 [first]            59        jmp first',
];

/**
 * Changes the image in place.
 * @param {import('./elf.mjs').Elf} elf
 * @throws {import('./elf.mjs').LayoutError} when the binary is not laid out as described above; nothing has been changed then
 */
export function useHugePagesForMalloc(elf) {
  requireLayout(elf.machine === EM.X86_64, `no code is written for machine ${elf.machine}`);
  const all = relocations(elf);
  const places = Object.fromEntries(
    ['malloc', 'free'].map((name) => [name, onlyRelocation(all, name, R_X86_64.JUMP_SLOT).place]),
  );
  const slot = elf.dynamicEntry(DT.INIT_ARRAY).value;
  requireLayout(
    !all.some(({ place }) => place === slot),
    'the first constructor is filled in by the loader, so the binary has no fixed address',
  );
  const first = elf.u64(elf.offsetOf(slot));
  // Code of ours lies behind .fini, the last of the program's own.
  requireLayout(first < elf.dynamicEntry(DT.FINI).value, 'the program begins somewhere else already');
  const space = spaceForCode(elf, assemble(MALLOC_X64, {}, 0).length);

  assemble(MALLOC_X64, { ...places, first }, space.address).copy(elf.bytes, space.offset);
  space.take();
  elf.setU64(elf.offsetOf(slot), space.address);
}

/**
 * Listings of machine code for x64: each line is code, offset, label, instruction; the code fills the first 22 characters. `[name]` in it is the
 * 32-bit distance from the end of the instruction to a known address.
 * @param {readonly string[]} listing @param {Readonly<Record<string, number>>} known addresses by name @param {number} address where the code will be
 */
export function assemble(listing, known, address) {
  /** @type {number[]} */
  const bytes = [];
  for (const line of listing) {
    const code = line.slice(0, 22).trim().split(' ');
    const length = code.reduce((sum, word) => sum + (word.startsWith('[') ? 4 : 1), 0);
    const end = address + bytes.length + length;
    for (const word of code) {
      if (!word.startsWith('[')) bytes.push(Number.parseInt(word, 16));
      else bytes.push(...int32((known[word.slice(1, -1)] ?? 0) - end));
    }
  }
  return Buffer.from(bytes);
}

/** @param {number} value */
function int32(value) {
  const bytes = Buffer.alloc(4);
  // Only the length counts when the address is not known yet.
  bytes.writeInt32LE(value | 0);
  return bytes;
}
