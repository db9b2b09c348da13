/** Remembers which sources dist/bin was built from, so that a command can tell whether it must build first. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';

const SOURCES = [
  'agent',
  'build',
  'cli',
  'conflist',
  'examples',
  'launcher',
  'packaging/systemd',
  'plugins',
  'shared',
];
// The bundler reads tsconfig.json, too.
const FILES = ['build.mjs', 'package.json', 'package-lock.json', 'tsconfig.json'];

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
  for (const file of [
    ...FILES.map((name) => resolve(root, name)),
    ...SOURCES.flatMap((name) => filesUnder(resolve(root, name))),
  ]) {
    hash.update(`\0${relative(root, file)}\0`).update(readFileSync(file));
  }
  return hash.digest('hex');
}

/** @param {string} folder @returns {string[]} */
function filesUnder(folder) {
  return readdirSync(folder, { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry) =>
      entry.isDirectory() ? filesUnder(join(folder, entry.name)) : [join(folder, entry.name)],
    );
}
