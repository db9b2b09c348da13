/**
 * V8 comes with the mutexes of Abseil, and Node's build leaves their search for deadlocks switched on: each lock is noted in a graph that takes
 * a megabyte, zeroed at every start. What they do when they find a cycle, an i32, becomes "nothing" (OnDeadlockCycle: 0 ignore, 1 report,
 * 2 abort), and then nothing is noted.
 */
import { demand } from './elf.mjs';
import { symbolAddress } from './symbols.mjs';

/** absl::(anonymous namespace)::synch_deadlock_detection */
const MODE = '_ZN4absl12_GLOBAL__N_124synch_deadlock_detectionE.0';
const ABORT = 2;
const IGNORE = 0;

/**
 * Changes the image in place. Before symbols are stripped.
 * @param {import('./elf.mjs').Elf} elf
 * @throws {import('./elf.mjs').LayoutError} when the variable is not there or holds something else; nothing has been changed then
 */
export function forgetLocks(elf) {
  const at = elf.offsetOf(symbolAddress(elf, MODE));
  demand(elf.bytes.readInt32LE(at) === ABORT, 'the search for deadlocks is set to something else');
  elf.bytes.writeInt32LE(IGNORE, at);
}
