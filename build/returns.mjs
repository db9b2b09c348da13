/**
 * Functions of the Node binary that do at every start what a plugin has no use for. Each becomes a return:
 *
 *   x64    55 48 89 e5   push %rbp; mov %rsp,%rbp   ->  c3 48 89 e5   ret
 *   arm64  the function's first instruction          ->  c0 03 5f d6   ret
 */
import { demand, EM } from './elf.mjs';
import { symbolAddress } from './symbols.mjs';

/**
 * void v8::internal::Isolate::CollectSourcePositionsForAllBytecodeArrays(). Node asks V8 for exact source positions in profiles, and V8 walks
 * the whole heap for functions that lack them: 5 % of a start. A plugin is never profiled, and positions for the stack of an error are found
 * when they are needed.
 */
export const POSITIONS = '_ZN2v88internal7Isolate42CollectSourcePositionsForAllBytecodeArraysEv';
/**
 * static void uv__iou_init(int epollfd, struct uv__iou* iou, uint32_t entries, uint32_t flags), src/unix/linux.c. libuv makes three io_urings, one
 * for each of Node's event loops, to save system calls of programs that serve connections. It leaves them out by itself where the kernel is
 * old, and then does without.
 */
export const RINGS = 'uv__iou_init';

/**
 * Changes the image in place. Before symbols are stripped.
 * @param {import('./elf.mjs').Elf} elf @param {string} name one of those above
 * @throws {import('./elf.mjs').LayoutError} when the function is not there or begins otherwise; nothing has been changed then
 */
export function returnAtOnce(elf, name) {
  const at = elf.offsetOf(symbolAddress(elf, name));
  if (elf.machine === EM.X86_64) {
    demand(elf.bytes.readUInt32BE(at) === 0x554889e5, `${name} begins with other instructions`);
    elf.bytes.writeUInt8(0xc3, at);
  } else {
    demand(elf.machine === EM.AARCH64, `machine ${elf.machine} is not known here`);
    elf.bytes.writeUInt32LE(0xd65f03c0, at);
  }
}
