/**
 * The Node binary that everything is built around, tested with and shipped in: the one of the npm package `node-linux-<arch>`, free of
 * libatomic, deaf to the environment, quick to start and stripped. Runs on plain Node >= 20 with nothing installed but that package.
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
import { deafen } from './deaf.mjs';
import { Elf, LayoutError } from './elf.mjs';
import { useHugePages } from './huge-pages.mjs';
import { freeOfLibatomic } from './libatomic.mjs';
import { forgetLocks } from './locks.mjs';
import { spareLookups } from './lookups.mjs';
import { useHugePagesForMalloc } from './malloc-pages.mjs';
import { POSITIONS, returnAtOnce, RINGS } from './returns.mjs';
import { stripElf } from './strip.mjs';

const PATCHES = [
  'assemble.mjs',
  'atomic-stubs.mjs',
  'deaf.mjs',
  'elf.mjs',
  'huge-pages.mjs',
  'libatomic.mjs',
  'locks.mjs',
  'lookups.mjs',
  'malloc-pages.mjs',
  'relocations.mjs',
  'returns.mjs',
  'room.mjs',
  'strip.mjs',
  'symbols.mjs',
  'base.mjs',
];

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

/** Writes beside and renames: whoever executes or reads the old file keeps it. @param {string} file @param {Buffer} bytes @param {number} mode */
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
      `cannot build for ${architecture} on ${process.arch}: the executable contains a heap snapshot, which only the very Node binary that` +
        ` will load it can make; run this same command on such a machine`,
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
      notes.push(`${what}: ${thrown.message}; the Node binary stays as it is in this respect`);
      return undefined;
    }
  };
  const bytes = Buffer.from(original);
  attempt('variables of the environment still reach it', () => deafen(bytes));
  attempt('source positions are collected at every start', () => returnAtOnce(new Elf(bytes), POSITIONS));
  attempt('io_urings are made at every start', () => returnAtOnce(new Elf(bytes), RINGS));
  attempt('locks are searched for deadlocks', () => forgetLocks(new Elf(bytes)));
  const freed = attempt('libatomic.so.1 is still needed at run time', () => freeOfLibatomic(new Elf(bytes)));
  attempt('all names are looked up by the loader', () => spareLookups(new Elf(bytes)));
  attempt('the heap is made of small pages', () => useHugePages(new Elf(bytes)));
  attempt("malloc's memory is made of small pages", () => useHugePagesForMalloc(new Elf(bytes)));
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
