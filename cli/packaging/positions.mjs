/**
 * Node asks V8 at every start for exact source positions in profiles, and V8 walks the whole heap for functions that lack them: 5 % of a start.
 * A plugin is never profiled, and positions for the stack of an error are found when they are needed. The walk becomes a return:
 *
 *   x64    55 48 89 e5   push %rbp; mov %rsp,%rbp   ->  c3 48 89 e5   ret
 *   arm64  the function's first instruction          ->  c0 03 5f d6   ret
 */
import { demand } from './elf.mjs';
import { symbolAddress } from './symbols.mjs';

/** void v8::internal::Isolate::CollectSourcePositionsForAllBytecodeArrays() */
const WALK = '_ZN2v88internal7Isolate42CollectSourcePositionsForAllBytecodeArraysEv';
const EM_X86_64 = 62;
const EM_AARCH64 = 183;

/**
 * Changes the image in place. Before symbols are stripped.
 * @param {import('./elf.mjs').Elf} elf
 * @throws {import('./elf.mjs').LayoutError} when the function is not there or begins otherwise; nothing has been changed then
 */
export function skipPositions(elf) {
  const at = elf.offsetOf(symbolAddress(elf, WALK));
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
