/**
 * Import this first in the snapshot's entry: it stops V8 from changing compiled functions. Otherwise the garbage collector drops unused
 * functions and records the age of others, and background threads record hot ones. All of this depends on the machine's speed and is
 * written to the snapshot, so that no two builds would be identical.
 */
import { setFlagsFromString } from 'node:v8';

const FLAGS = ['flush-bytecode', 'opt'];

for (const flag of FLAGS) setFlagsFromString(`--no-${flag}`);

/**
 * Restores V8's defaults: V8 compares flags when it loads compiled code, so the snapshot must be stored with them.
 */
export function release(): void {
  for (const flag of FLAGS) setFlagsFromString(`--${flag}`);
}
