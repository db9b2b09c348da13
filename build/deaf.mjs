/**
 * Makes the Node binary deaf to variables of the environment that reach it although the executable ignores NODE_OPTIONS, and that would make
 * a plugin write files (NODE_V8_COVERAGE, NODE_COMPILE_CACHE), talk on stderr before its version (NODE_DEBUG_NATIVE), or not start at
 * all (NODE_REPL_EXTERNAL_MODULE). Whoever starts Nomad's agent may have set them; nothing that runs later could still help.
 *
 *   .rodata | ...text\0NODE_V8_COVERAGE\0text... |   its first letter becomes "=", which no variable's name can have
 */
import { demand } from './elf.mjs';

export const UNHEARD = [
  'NODE_V8_COVERAGE',
  'NODE_COMPILE_CACHE',
  'NODE_DEBUG_NATIVE',
  'NODE_REPL_EXTERNAL_MODULE',
];

/**
 * Changes the image in place.
 * @param {Buffer} bytes
 * @throws {import('./elf.mjs').LayoutError} when a name does not stand there exactly once; nothing has been changed then
 */
export function deafen(bytes) {
  for (const at of UNHEARD.map((name) => findName(bytes, name))) bytes.write('=', at, 'latin1');
}

/**
 * The same words are also in Node's JavaScript and in V8's serialized heap, where a length stands before them (three zeros of it):
 * only what follows another text is a string of C.
 * @param {Buffer} bytes @param {string} name
 */
function findName(bytes, name) {
  const found = [];
  const wanted = `\0${name}\0`;
  for (let at = bytes.indexOf(wanted, 1, 'latin1'); at > 0; at = bytes.indexOf(wanted, at + 1, 'latin1')) {
    if (bytes[at - 1] !== 0) found.push(at + 1);
  }
  const [place] = found;
  demand(place !== undefined && found.length === 1, `${name} is in the binary ${found.length} times`);
  return place;
}
