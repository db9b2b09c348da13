/**
 * TypeScript -> one bundle -> startup snapshot -> one executable -> a hard link under every plugin's name in dist/bin; and the launchers of
 * the node agent in dist/agent.
 * usage: node build.mjs [--no-tune] [--no-timing]
 * Runs on plain Node >= 20 after `npm ci`; continues by itself in the Node 26 that the executable is built around.
 * docs/internals/packaging.md has the reasons and the figures.
 */
import { spawnSync } from 'node:child_process';
import {
  linkSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync } from 'node:zlib';
import { nodeBase } from './build/node-binary.mjs';
import { LayoutError } from './build/elf.mjs';
import { compileLauncher } from './build/launcher.mjs';
import { median, race } from './build/measure.mjs';
import { thirdPartyNotices } from './build/notices.mjs';
import { fingerprint, writeStamp } from './build/stamp.mjs';
import { workFolder } from './build/work-folder.mjs';

const root = fileURLToPath(new URL('.', import.meta.url));
const base = baseOrExit();
for (const note of base.notes) say(`warning: ${note}`);

if (process.version === `v${base.version}`) {
  await build().catch((thrown) => {
    process.stderr.write(`build.mjs: ${thrown.message}\n`);
    process.exitCode = 1;
  });
} else {
  say(`Node ${base.version} from npm, prepared: ${megabytes(base.file)} (continuing in it)`);
  const { status, error } = spawnSync(base.file, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: 'inherit',
  });
  if (error) throw error;
  process.exitCode = status ?? 1;
}

/** Missing prerequisites are reported as one line, without a stack trace. */
function baseOrExit() {
  try {
    return nodeBase(root);
  } catch (thrown) {
    process.stderr.write(`build.mjs: ${thrown instanceof Error ? thrown.message : thrown}\n`);
    process.exit(1);
  }
}

async function build() {
  const { bundle, textAssets } = await import('./build/bundle.mjs');
  const { PLUGIN_NAMES } = await import('./plugins/index.ts');
  const names = [...PLUGIN_NAMES, 'weft'];
  const { latePartAssets, pack, tune } = await import('./build/pack.mjs');
  mkdirSync(resolve(root, 'dist'), { recursive: true });
  const work = workFolder(resolve(root, 'dist'));
  try {
    const { late, inputs } = await bundle(root, work);
    say(`bundled ${inputs.length} files`);
    saveSourceMaps(work);
    const release = fingerprint(root).slice(0, 32);
    const launcher = compileLauncher(root, work, release);
    const notices = writeNotices(inputs, launcher, work);
    const parts = {
      work,
      node: base.file,
      assets: {
        ...textAssets(root),
        ...latePartAssets(late),
        ...notices,
        ...releaseAssets(release, launcher?.file, work),
      },
    };
    const packed = await pack(parts);
    verifyStarts(packed, work);
    say(`packed with a startup snapshot: ${megabytes(packed)}`);
    install(
      process.argv.includes('--no-tune') ? packed : orPacked(packed, () => tune({ ...parts, packed }), work),
      names,
      work,
    );
    installLaunchers(PLUGIN_NAMES, { release, launcher: launcher?.file }, work);
    writeStamp(root);
    report(names, process.argv.includes('--no-timing') ? 0 : 11);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/**
 * For `weft install --agent` and `weft agent`: the release, which is known before the executable is made, and the launcher.
 * @param {string} release @param {string | undefined} launcher @param {string} work @returns {Record<string, string>} the assets
 */
function releaseAssets(release, launcher, work) {
  const file = join(work, 'release');
  writeFileSync(file, release);
  if (launcher === undefined) return { release: file };
  const compressed = join(work, 'launcher.br');
  writeFileSync(compressed, brotliCompressSync(readFileSync(launcher)));
  return { release: file, 'launcher.br': compressed };
}

/** The source maps of all bundles, for scripts/stack.mjs. @param {string} work */
function saveSourceMaps(work) {
  const folder = resolve(root, 'dist/maps');
  mkdirSync(folder, { recursive: true });
  for (const file of readdirSync(work).filter((name) => name.endsWith('.map'))) {
    const map = JSON.parse(readFileSync(join(work, file), 'utf8'));
    map.sources = map.sources.map((/** @type {string} */ source) => relative(folder, resolve(work, source)));
    writeFileSync(join(folder, file === 'bundle.cjs.map' ? 'plugins.cjs.map' : file), JSON.stringify(map));
  }
}

/**
 * The third-party notices: as text beside dist/bin, and compressed for `weft licenses`.
 * @param {readonly string[]} inputs @param {import('./build/launcher.mjs').Launcher | undefined} launcher @param {string} work
 * @returns {Record<string, string>} the asset
 */
function writeNotices(inputs, launcher, work) {
  const text = thirdPartyNotices(root, inputs, base.source, launcher);
  writeFileSync(resolve(root, 'dist/THIRD-PARTY-NOTICES.txt'), text);
  const file = join(work, 'third-party-notices.txt.br');
  writeFileSync(file, brotliCompressSync(text));
  return { 'third-party-notices.txt.br': file };
}

/**
 * The tuned file if it can be made and works; otherwise pkg's file, with a warning.
 * @param {string} packed @param {() => { file: string, note: string }} make @param {string} work
 */
function orPacked(packed, make, work) {
  try {
    const { file, note } = make();
    verifyStarts(file, work);
    say(`tuned: ${megabytes(file)} (${note})`);
    return file;
  } catch (thrown) {
    if (!(thrown instanceof LayoutError || thrown instanceof BrokenExecutable)) throw thrown;
    say(
      `warning: not tuned: ${thrown.message}. The executables work, but start a few milliseconds slower and are not reproducible.`,
    );
    return packed;
  }
}

class BrokenExecutable extends Error {}

/** Starts the file as Nomad's fingerprint does, with an empty environment. @param {string} file @param {string} work */
function verifyStarts(file, work) {
  const bridge = join(work, 'bridge');
  rmSync(bridge, { force: true });
  linkSync(file, bridge);
  const { stdout, stderr, status, signal } = spawnSync(bridge, { env: {}, encoding: 'utf8' });
  if (status !== 0 || !stderr.startsWith('CNI bridge plugin v')) {
    throw new BrokenExecutable(`it exited with ${signal ?? status} and printed "${stdout}${stderr}"`);
  }
}

/** Renames each new link into place, so that every name is a complete executable at any moment. @param {string} file @param {string[]} names @param {string} work */
function install(file, names, work) {
  const bin = resolve(root, 'dist/bin');
  mkdirSync(bin, { recursive: true });
  installAs(file, names, bin, work);
}

/** @param {string} file @param {readonly string[]} names @param {string} folder @param {string} work */
function installAs(file, names, folder, work) {
  for (const name of names) {
    const fresh = join(work, `link-${name}`);
    linkSync(file, fresh);
    renameSync(fresh, join(folder, name));
  }
}

/**
 * dist/agent: a directory for plugins with a launcher under each name, and the executable that it falls back to as `.weft/RELEASE`. Nomad
 * executes the files of the directory, not those below it.
 * @param {readonly string[]} names @param {{ release: string, launcher: string | undefined }} built @param {string} work
 */
function installLaunchers(names, { release, launcher }, work) {
  const executable = resolve(root, 'dist/bin/weft');
  if (launcher === undefined) {
    say(
      'warning: no C compiler (cc): dist/agent and "weft install --agent" are left out, the executables in dist/bin are complete',
    );
    return;
  }
  const folder = resolve(root, 'dist/agent');
  mkdirSync(join(folder, '.weft'), { recursive: true });
  const fallback = join(folder, '.weft', release);
  rmSync(fallback, { force: true });
  linkSync(executable, fallback);
  installAs(launcher, names, folder, work);
  for (const other of readdirSync(join(folder, '.weft')).filter((name) => name !== release))
    rmSync(join(folder, '.weft', other));
  say(`launchers of release ${release} in dist/agent (${Math.round(statSync(launcher).size / 1e3)} kB)`);
}

/** @param {string[]} names @param {number} rounds */
function report(names, rounds) {
  const bin = resolve(root, 'dist/bin');
  say(`one file, ${megabytes(join(bin, 'bridge'))}, under ${names.length} names in dist/bin`);
  if (rounds === 0) return;
  const plain = { name: 'node -e 0', file: base.source, args: ['-e', '0'] };
  const ours = names.map((name) => ({ name, file: join(bin, name), args: ['--version'] }));
  say(`start to end, median of ${rounds}, alternating with plain Node:`);
  for (const [name, milliseconds] of race([...ours, plain], rounds)) {
    say(`  ${name.padEnd(14)} ${median(milliseconds).toFixed(1).padStart(6)} ms`);
  }
}

/** @param {string} file */
function megabytes(file) {
  return `${(statSync(file).size / 1e6).toFixed(1)} MB`;
}

/** @param {string} line */
function say(line) {
  process.stdout.write(`${line}\n`);
}
