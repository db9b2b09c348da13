/**
 * usage: node scripts/stack.mjs < stack-trace
 * Replaces positions in the bundles of the executable (`plugins.cjs:1:23456`) by positions in the sources, with the source maps of the last
 * build in dist/maps. The executable contains minified code without maps, which every start would have to restore.
 */
import { readFileSync } from 'node:fs';
import { SourceMap } from 'node:module';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const MAPS = fileURLToPath(new URL('../dist/maps', import.meta.url));
const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** The wrappers that build/compile-eagerly.cjs and build/load-part.cjs put before the first line of a bundle. */
const PREFIX = {
  plugins: '(function (require) {'.length,
  part: '(function (exports, require, module) {'.length,
};

/** @type {Map<string, SourceMap | undefined>} */
const maps = new Map();

process.stdout.write(
  readFileSync(0, 'utf8').replaceAll(
    /\b([\w-]+)\.cjs:(\d+):(\d+)/g,
    (position, name, line, column) => sourceOf(name, Number(line), Number(column)) ?? position,
  ),
);

/** @param {string} name @param {number} line @param {number} column both count from 1 @returns {string | undefined} */
function sourceOf(name, line, column) {
  const prefix = line > 1 ? 0 : name === 'plugins' ? PREFIX.plugins : PREFIX.part;
  const entry = mapOf(name)?.findEntry(line - 1, column - 1 - prefix);
  if (entry === undefined || !('originalSource' in entry)) return undefined;
  const file = relative(ROOT, resolve(MAPS, entry.originalSource));
  return `${file}:${entry.originalLine + 1}:${entry.originalColumn + 1}`;
}

/** @param {string} name @returns {SourceMap | undefined} undefined when the build has no map of this name */
function mapOf(name) {
  if (!maps.has(name)) maps.set(name, readMap(join(MAPS, `${name}.cjs.map`)));
  return maps.get(name);
}

/** @param {string} file */
function readMap(file) {
  try {
    return new SourceMap(JSON.parse(readFileSync(file, 'utf8')));
  } catch (thrown) {
    if (/** @type {NodeJS.ErrnoException} */ (thrown).code === 'ENOENT') return undefined;
    throw thrown;
  }
}
