import { EM, requireLayout, symbolAddress } from './elf.mjs';

/**
 * Makes the Node binary ignore environment variables that take effect although the executable ignores NODE_OPTIONS, and that would make
 * a plugin write files (NODE_V8_COVERAGE, NODE_COMPILE_CACHE), talk on stderr before its version (NODE_DEBUG_NATIVE), or not start at
 * all (NODE_REPL_EXTERNAL_MODULE). ICU crashes while Node starts when the locale variables that it reads (LC_ALL, LC_MESSAGES, LANG) are very
 * long; without them it uses the C locale. All of these may be set where Nomad's agent is started, and take effect before any code of ours runs.
 *
 *   .rodata | ...text\0NODE_V8_COVERAGE\0text... |   its first letter becomes "=", which no variable's name can have
 */

export const IGNORED_VARIABLES = [
  'NODE_V8_COVERAGE',
  'NODE_COMPILE_CACHE',
  'NODE_DEBUG_NATIVE',
  'NODE_REPL_EXTERNAL_MODULE',
  'LC_ALL',
  'LC_MESSAGES',
  'LANG',
];

/**
 * Changes the image in place.
 * @param {Buffer} bytes
 * @throws {import('./elf.mjs').LayoutError} when a name is not found exactly once; nothing has been changed then
 */
export function ignoreVariables(bytes) {
  for (const at of IGNORED_VARIABLES.map((name) => findName(bytes, name))) bytes.write('=', at, 'latin1');
}

/**
 * The same names are also in Node's JavaScript and in V8's serialized heap, where a length stands before them (three zeros of it):
 * only what follows another text is a string of C. A linker may store a string as the end of a longer one (LANG in CLANG): then that must be
 * the only place of all.
 * @param {Buffer} bytes @param {string} name
 */
function findName(bytes, name) {
  const found = [];
  const wanted = `\0${name}\0`;
  for (let at = bytes.indexOf(wanted, 1, 'latin1'); at > 0; at = bytes.indexOf(wanted, at + 1, 'latin1')) {
    if (bytes[at - 1] !== 0) found.push(at + 1);
  }
  if (found.length === 0) {
    for (
      let at = bytes.indexOf(`${name}\0`, 1, 'latin1');
      at > 0;
      at = bytes.indexOf(`${name}\0`, at + 1, 'latin1')
    )
      found.push(at);
  }
  const [place] = found;
  requireLayout(place !== undefined && found.length === 1, `${name} is in the binary ${found.length} times`);
  return place;
}

/**
 * V8 uses Abseil's mutexes, and Node's build leaves their deadlock detection enabled: each lock is recorded in a graph of one megabyte,
 * zeroed at every start. The action on a cycle, an i32, is set to "ignore" (OnDeadlockCycle: 0 ignore, 1 report,
 * 2 abort), and then nothing is noted.
 */

/** absl::(anonymous namespace)::synch_deadlock_detection */
const MODE = '_ZN4absl12_GLOBAL__N_124synch_deadlock_detectionE.0';
const ABORT = 2;
const IGNORE = 0;

/**
 * Changes the image in place. Before symbols are stripped.
 * @param {import('./elf.mjs').Elf} elf
 * @throws {import('./elf.mjs').LayoutError} when the variable is not there or holds something else; nothing has been changed then
 */
export function disableDeadlockDetection(elf) {
  const at = elf.offsetOf(symbolAddress(elf, MODE));
  requireLayout(elf.bytes.readInt32LE(at) === ABORT, 'the search for deadlocks is set to something else');
  elf.bytes.writeInt32LE(IGNORE, at);
}

/**
 * Functions that Node calls at every start and a plugin does not need. Each becomes a return:
 *
 *   x64    55 48 89 e5   push %rbp; mov %rsp,%rbp   ->  c3 48 89 e5   ret
 *   arm64  the function's first instruction          ->  c0 03 5f d6   ret
 */

/**
 * void v8::internal::Isolate::CollectSourcePositionsForAllBytecodeArrays(). Node asks V8 for exact source positions in profiles, and V8 walks
 * the whole heap for functions that lack them: 5 % of a start. A plugin is never profiled, and positions for the stack of an error are found
 * when they are needed.
 */
export const SOURCE_POSITIONS = '_ZN2v88internal7Isolate42CollectSourcePositionsForAllBytecodeArraysEv';
/**
 * static void uv__iou_init(int epollfd, struct uv__iou* iou, uint32_t entries, uint32_t flags), src/unix/linux.c. libuv makes three io_urings, one
 * for each of Node's event loops, to save system calls of programs that serve connections. It leaves them out by itself where the kernel is
 * old, and then does without.
 */
export const IO_URING_SETUP = 'uv__iou_init';

/**
 * Changes the image in place. Before symbols are stripped.
 * @param {import('./elf.mjs').Elf} elf @param {string} name one of those above
 * @throws {import('./elf.mjs').LayoutError} when the function is not there or begins otherwise; nothing has been changed then
 */
export function returnImmediately(elf, name) {
  const at = elf.offsetOf(symbolAddress(elf, name));
  if (elf.machine === EM.X86_64) {
    requireLayout(elf.bytes.readUInt32BE(at) === 0x554889e5, `${name} begins with other instructions`);
    elf.bytes.writeUInt8(0xc3, at);
  } else {
    requireLayout(elf.machine === EM.AARCH64, `machine ${elf.machine} is not known here`);
    elf.bytes.writeUInt32LE(0xd65f03c0, at);
  }
}
