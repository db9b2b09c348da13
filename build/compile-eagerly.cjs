'use strict';

/**
 * The snapshot's main script: evaluates the bundle with every function compiled. V8 otherwise compiles a function at its first call, and
 * in a plugin's process every call is a first one: 150 (loopback) to 430 (bridge) functions, a third of the time that an ADD spent in
 * its own code. Compiled code of all of them adds 1 MB to the snapshot, which costs each start less than 1 ms.
 *
 * As an eval, because V8 has a flag of its own for that: the modules of Node stay lazy. (Everything compiled, Node's modules too, is 4 MB.)
 */
const { closeSync, openSync, readSync } = process.getBuiltinModule('node:fs');
const { join } = process.getBuiltinModule('node:path');
const { setFlagsFromString } = process.getBuiltinModule('node:v8');

// esbuild writes ASCII: a string of one byte per character.
const source = readWithoutStat(join(__dirname, 'bundle.cjs')).toString('latin1');
setFlagsFromString('--no-lazy-eval');
const evaluate = (0, eval)(`(function (require) {${source}\n})\n//# sourceURL=plugins.cjs`);
setFlagsFromString('--lazy-eval');
evaluate(require);

/** readFileSync would leave the file's inode and times in a buffer of Node that the snapshot keeps: no two builds were the same. @param {string} file */
function readWithoutStat(file) {
  const chunks = [];
  const fd = openSync(file, 'r');
  for (;;) {
    const chunk = Buffer.alloc(65_536);
    const length = readSync(fd, chunk);
    if (length === 0) break;
    chunks.push(chunk.subarray(0, length));
  }
  closeSync(fd);
  return Buffer.concat(chunks);
}
