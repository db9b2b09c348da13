/**
 * Huge pages for malloc. A start takes 5 MB by malloc, which come 4 KiB at a time: a thousand page faults, a twelfth of a start. Before the first
 * constructor of the binary runs, the code below makes the C library's heap 8 MiB longer, and asks for huge pages for it (madvise(2)):
 *
 * - malloc(8 MiB), free: it was mapped by itself; when such a block is freed, glibc maps only larger ones from then on, and gives the heap's
 *   end back to the kernel only beyond twice as much (M_MMAP_THRESHOLD and M_TRIM_THRESHOLD are dynamic, mallopt(3));
 * - malloc(a little less): so it comes from the heap, which grows for it (brk(2)); madvise; free: the heap stays as long as it is.
 *
 * Another malloc than glibc's has its block made and freed, and that is all. It is entered by the first slot of | .init_array | address u64 ... |,
 * and goes on to where that led.
 */
import { assemble } from './assemble.mjs';
import { DT, demand, EM } from './elf.mjs';
import { onlyRelocation, R_X86_64, relocations } from './relocations.mjs';
import { roomForCode } from './room.mjs';

/** System V AMD64: edi, rsi, rdx are main's arguments; three pushes leave the stack aligned for calls. */
const X64 = [
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
  demand(elf.machine === EM.X86_64, `no code is written for machine ${elf.machine}`);
  const all = relocations(elf);
  const places = Object.fromEntries(
    ['malloc', 'free'].map((name) => [name, onlyRelocation(all, name, R_X86_64.JUMP_SLOT).place]),
  );
  const slot = elf.dynamicEntry(DT.INIT_ARRAY).value;
  demand(
    !all.some(({ place }) => place === slot),
    'the first constructor is filled in by the loader, so the binary has no fixed address',
  );
  const first = elf.u64(elf.offsetOf(slot));
  // Code of ours lies behind .fini, the last of the program's own.
  demand(first < elf.dynamicEntry(DT.FINI).value, 'the program begins somewhere else already');
  const room = roomForCode(elf, assemble(X64, {}, 0).length);

  assemble(X64, { ...places, first }, room.address).copy(elf.bytes, room.offset);
  room.take();
  elf.setU64(elf.offsetOf(slot), room.address);
}
