/**
 * To be imported first by what ends up in a snapshot or a code cache: from then on V8 leaves alone what it has compiled. Otherwise a
 * garbage collection drops functions not used lately and notes how old the others are, and background threads note which functions they
 * found hot; all of that depends on the pace of the machine and would be written out, so that no two builds were the same.
 */
import { setFlagsFromString } from 'node:v8';

const FLAGS = ['flush-bytecode', 'opt'];

for (const flag of FLAGS) setFlagsFromString(`--no-${flag}`);

/**
 * Back to V8's defaults: it compares flags when it loads compiled code, so they must be these when the code is stored. (The compilers
 * that pack.mjs leaves out are never in.)
 */
export function release(): void {
  for (const flag of FLAGS) setFlagsFromString(`--${flag}`);
}
