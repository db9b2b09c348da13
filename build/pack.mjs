import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { basename, join } from 'node:path';
import { brotliCompressSync } from 'node:zlib';
import { replaceBlob, trimCodeCache } from './sea-blob.mjs';

/** One CommonJS bundle -> one executable with a startup snapshot of it. */

/**
 * V8's flags, the same at build time and at run time: with others it would reject all compiled code, that of Node's own modules too.
 * --no-rehash-snapshot      saves 3 ms of every start: no new seed for string hashes, whose protection against flooded hash tables a
 *                           process that reads one trusted document and ends does not need.
 * --no-sparkplug --no-maglev  two of V8's compilers, whose work costs more than it saves in a process of some 30 ms: 2 ms of every ADD went
 *                           into machine code that ran once. What loops for long is optimised as ever (a lease store or a chain with
 *                           thousands of entries).
 * --min-semi-space-size     memory (MiB) that may be used before the first garbage collection: an ADD ends before.
 * --max-semi-space-size     the same: V8 would double it in a process that lives on (the node agent), which needs twice as much of it.
 */
const V8_FLAGS = [
  '--no-rehash-snapshot',
  '--no-sparkplug',
  '--no-maglev',
  '--min-semi-space-size=16',
  '--max-semi-space-size=16',
];
/**
 * Part of the executable, not of its surroundings: NODE_OPTIONS is ignored (`execArgvExtension: none`).
 * --v8-pool-size=1      one helper thread, the minimum (0 means one per processor): each takes time to start.
 * --openssl-config      nothing: a broken /etc/ssl/openssl.cnf, or a module of it that is absent, would end every plugin before our first line.
 * --disable-sigusr1     no signal opens a debugger on a process of root's.
 * --no-warnings         stderr belongs to the plugin: Nomad looks for a version in it.
 */
const RUN_FLAGS = [
  ...V8_FLAGS,
  '--v8-pool-size=1',
  '--openssl-config=/dev/null',
  '--disable-sigusr1',
  '--no-warnings',
];
/**
 * Without a random seed (hash seeds come from it) and without absolute paths, the same sources give the same bytes. The seed is the one
 * flag that V8 leaves out when it compares.
 */
const BUILD_FLAGS = [...V8_FLAGS, '--random-seed=1', '--no-warnings'];
/** Late parts that only `weft` uses: compressed, because size matters more than speed there. */
const COMPRESSED = ['weft.cjs', 'countdash.cjs', 'agent.cjs', 'metrics.cjs'];

/**
 * @typedef {object} Parts
 * @property {string} work    directory for intermediate files; contains the bundle as plugins.cjs
 * @property {string} node    the Node binary, which also makes the snapshot
 * @property {Readonly<Record<string, string>>} assets
 */

/**
 * Source only. V8's compiled code cannot go with it: it is bound to the read-only heap of the process that made it, and that of an executable
 * with a startup snapshot is another one than plain Node's (V8 rejects it silently, `cachedDataRejected`).
 * @param {readonly string[]} files
 * @returns {Record<string, string>} the late parts as files of the executable
 */
export function latePartAssets(files) {
  return Object.fromEntries(files.map(compress).map((file) => [basename(file), file]));
}

/** @param {string} file @returns {string} the file to ship */
function compress(file) {
  if (!COMPRESSED.includes(basename(file))) return file;
  writeFileSync(`${file}.br`, brotliCompressSync(readFileSync(file)));
  return `${file}.br`;
}

/**
 * The executable as pkg makes it; used as it is when {@link tune} fails.
 * pkg does not offer snapshots on its command line, so its SEA module is called directly; its version is pinned.
 * @param {Parts} parts
 * @returns {Promise<string>} the file
 */
export async function pack({ work, node, assets }) {
  const { default: sea } = createRequire(import.meta.url)('pkg/lib-es5/sea.js');
  const file = join(work, 'packed');
  await quietly(() =>
    sea(join(work, 'plugins.cjs'), {
      targets: [{ nodeRange: 'node26', platform: 'linux', arch: process.arch, output: file }],
      nodePath: node,
      signature: false,
      seaConfig: { ...seaConfig(), assets },
    }),
  );
  return file;
}

/**
 * The same executable with a blob that is reproducible and a third smaller.
 * @param {Parts & { packed: string }} parts
 * @returns {{ file: string, note: string }}
 * @throws {LayoutError} when the file layout of Node or pkg is unexpected; the packed file is unchanged
 */
export function tune({ work, node, assets, packed }) {
  const blob = trimCodeCache(makeBlob({ work, node, assets }), LOADED_AT_RUN_TIME);
  const file = join(work, 'tuned');
  writeFileSync(file, replaceBlob(readFileSync(packed), blob.blob), { mode: 0o755 });
  return { file, note: `compiled built-in modules in the snapshot: ${blob.before} -> ${blob.after}` };
}

/**
 * Runs the bundle in the folder's own Node and freezes the heap. The bundle is named by a path that is the same in every folder:
 * a snapshot remembers it.
 * @param {Parts} parts
 */
function makeBlob({ work, node, assets }) {
  const config = {
    ...seaConfig(),
    main: '/proc/self/cwd/plugins.cjs',
    output: 'weft.blob',
    assets,
  };
  writeFileSync(join(work, 'sea.json'), JSON.stringify(config));
  execFileSync(node, [...BUILD_FLAGS, '--experimental-sea-config', 'sea.json'], {
    cwd: work,
    env: {},
    stdio: 'pipe',
  });
  return readFileSync(join(work, 'weft.blob'));
}

function seaConfig() {
  return {
    disableExperimentalSEAWarning: true,
    useSnapshot: true,
    useCodeCache: false,
    execArgv: RUN_FLAGS,
    execArgvExtension: 'none',
  };
}

/** Suppresses pkg's progress messages; errors are thrown. @param {() => Promise<void>} work */
async function quietly(work) {
  const { log } = console;
  console.log = () => undefined;
  try {
    await work();
  } finally {
    console.log = log;
  }
}

/** Built-in modules of Node that plugins load at run time; the compiled code of all others is removed from the snapshot. */

/** Needed by shared/kernel/libc.ts. */
export const LIBC = ['ffi', 'internal/ffi-shared-buffer', 'internal/ffi/fast-api', 'internal/ffi/vfs'];

/** Needed by load-part.cjs, which evaluates the parts outside the snapshot. */
const LATE_PARTS = ['sea', 'vm'];

const LOADED_AT_RUN_TIME = [...LIBC, ...LATE_PARTS];
