/**
 * The Node binary that the build, the tests and the executables use: the one of the npm package `node-linux-<arch>`, stripped, and able to
 * start without libatomic. Runs on Node >= 20 with nothing else installed.
 */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { Elf, LayoutError } from './elf.mjs';
import { withoutLibatomic } from './libatomic.mjs';
import { stripElf } from './strip.mjs';

/** Files whose change makes a prepared binary stale. */
const PATCHES = ['elf.mjs', 'libatomic.mjs', 'node-binary.mjs', 'strip.mjs'];

/**
 * @param {string} root the repository
 * @param {string} [architecture] only that of this machine can be built
 * @returns {{ file: string, version: string, source: string, stubAddress: number | undefined, notes: string[] }}
 */
export function nodeBase(root, architecture = process.arch) {
  const source = findNode(root, architecture);
  const version = JSON.parse(readFileSync(resolve(dirname(source), '../package.json'), 'utf8')).version;
  const file = resolve(root, `dist/tools/node-${version}`);
  const record = `${file}.json`;
  const key = cacheKey(source, version);
  if (existsSync(file) && existsSync(record)) {
    const known = JSON.parse(readFileSync(record, 'utf8'));
    if (known.key === key) return { file, version, source, stubAddress: known.stubAddress, notes: [] };
  }
  const { bytes, stubAddress, notes } = patch(readFileSync(source));
  mkdirSync(dirname(file), { recursive: true });
  replaceFile(file, bytes, 0o755);
  replaceFile(record, Buffer.from(JSON.stringify({ key, stubAddress })), 0o644);
  return { file, version, source, stubAddress, notes };
}

/** Writes a new file and renames it: processes that execute or read the old file keep it. @param {string} file @param {Buffer} bytes @param {number} mode */
export function replaceFile(file, bytes, mode) {
  const folder = mkdtempSync(`${file}-`);
  try {
    const fresh = join(folder, 'fresh');
    writeFileSync(fresh, bytes, { mode });
    renameSync(fresh, file);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** @param {string} root @param {string} architecture */
function findNode(root, architecture) {
  if (process.platform !== 'linux') throw new Error(`the plugins are for Linux; this is ${process.platform}`);
  if (architecture !== process.arch) {
    throw new Error(
      `cannot build for ${architecture} on ${process.arch}: the executable contains a heap snapshot, which only the Node binary that` +
        ` loads it can create; run this command on such a machine`,
    );
  }
  const file = resolve(root, `node_modules/node-linux-${architecture}/bin/node`);
  if (!existsSync(file)) {
    throw new Error(
      `${file} is missing: run \`npm ci\` (it installs the optional package node-linux-${architecture}; there are packages for x64 and arm64)`,
    );
  }
  return file;
}

/** @param {Buffer} original */
function patch(original) {
  /** @type {string[]} */
  const notes = [];
  const attempt = (/** @type {string} */ what, /** @type {() => any} */ change) => {
    try {
      return change();
    } catch (thrown) {
      if (!(thrown instanceof LayoutError)) throw thrown;
      notes.push(`${what}: ${thrown.message}; the Node binary is left unchanged in this respect`);
      return undefined;
    }
  };
  const bytes = Buffer.from(original);
  const freed = attempt('libatomic.so.1 is still needed at run time', () => withoutLibatomic(new Elf(bytes)));
  return {
    bytes: attempt('not stripped', () => stripElf(bytes)) ?? bytes,
    stubAddress: freed?.stubAddress,
    notes,
  };
}

/** @param {string} source @param {string} version */
function cacheKey(source, version) {
  const hash = createHash('sha256').update(version);
  const { size, mtimeMs } = statSync(source);
  hash.update(`${source} ${size} ${mtimeMs}`);
  for (const file of PATCHES) hash.update(readFileSync(new URL(file, import.meta.url)));
  return hash.digest('hex');
}
