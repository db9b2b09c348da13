/** Remembers which sources dist/bin was built from, so that a command can tell whether it must build first. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';

/** All that the bytes of dist/bin depend on, besides node_modules: files, and folders with all that is in them. */
export const SOURCES = [
  'build.mjs',
  'package.json',
  'package-lock.json',
  // The bundler reads it, too.
  'tsconfig.json',
  'agent',
  'build',
  'cli',
  'conflist',
  'docs/reference/configuration.md',
  'examples',
  'launcher',
  'packaging/systemd',
  'plugins',
  'shared',
];

/** @param {string} root the repository @returns {boolean} */
export function isUpToDate(root) {
  const stamp = stampFile(root);
  return (
    existsSync(stamp) &&
    existsSync(resolve(root, 'dist/bin/weft')) &&
    readFileSync(stamp, 'utf8') === fingerprint(root)
  );
}

/** @param {string} root */
export function writeStamp(root) {
  writeFileSync(stampFile(root), fingerprint(root));
}

/** @param {string} root */
function stampFile(root) {
  return resolve(root, 'dist/sources.sha256');
}

/** Of all sources and locked packages, Node among them, and the architecture. @param {string} root @returns {string} hexadecimal */
export function fingerprint(root) {
  const hash = createHash('sha256').update(process.arch);
  for (const file of SOURCES.flatMap((name) => filesUnder(resolve(root, name)))) {
    hash.update(`\0${relative(root, file)}\0`).update(readFileSync(file));
  }
  return hash.digest('hex');
}

/** @param {string} path of a file or a folder @returns {string[]} */
function filesUnder(path) {
  if (statSync(path).isFile()) return [path];
  return readdirSync(path)
    .sort((a, b) => (a < b ? -1 : 1))
    .flatMap((name) => filesUnder(join(path, name)));
}
