/**
 * usage: node scripts/task.mjs build | countdash | test | unit | host | lint | typecheck | coverage | bench | soak | fuzz | package | vm [arguments]
 * The commands of package.json: each installs what it needs first and says why. Runs on plain Node >= 20.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nodeBase } from '../build/node-binary.mjs';
import { isUpToDate } from '../build/stamp.mjs';
import { ENVOY_TOOLS, provideEnvoy } from './envoy.mjs';
import { provideFirewalld } from './firewalld.mjs';
import {
  BENCH_TOOLS,
  BUILD_TOOLS,
  isInstalled,
  LAUNCHER_FUZZ_TOOLS,
  PACKAGE_TEST_TOOLS,
  PACKAGE_TOOLS,
  SetupError,
  setUp,
  TEST_TOOLS,
  TOOLS,
} from './setup.mjs';
import { runMachines, VM_TOOLS } from './vm.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const TASKS = {
  build,
  countdash,
  test,
  unit,
  host,
  lint,
  typecheck,
  coverage,
  bench,
  soak,
  fuzz,
  package: packages,
  vm,
};
/** Every package that lint checks for import cycles. */
const PRODUCT = [
  'agent',
  'build.mjs',
  'build',
  'cli',
  'conflist',
  'examples',
  'packaging',
  'plugins',
  'shared',
  'scripts',
];

/** @typedef {{ what: string, script: string, options: readonly string[] }} Check */
/** @type {Check} */
const ESLINT = { what: 'lint', script: 'eslint/bin/eslint.js', options: ['.'] };
/** @type {Check} */
const CYCLES = {
  what: 'import cycles',
  script: 'dependency-cruiser/bin/dependency-cruise.mjs',
  options: ['--config', '.dependency-cruiser.cjs', ...PRODUCT],
};
/** @type {Check} */
const NAMES = {
  what: 'names of files',
  script: resolve(root, 'scripts/check-names.mjs'),
  options: PRODUCT.filter((path) => !path.endsWith('.mjs')),
};
/** @type {Check} */
const PRETTIER = {
  what: 'format',
  script: 'prettier/bin/prettier.cjs',
  options: ['--check', '--log-level=warn', '.'],
};
/** @type {Check} */
const TYPES = { what: 'types', script: 'typescript/bin/tsc', options: ['-p', '.'] };

const [name = '', ...args] = process.argv.slice(2);
const task = Object.entries(TASKS).find(([key]) => key === name)?.[1];
if (task === undefined) {
  process.stderr.write(`usage: node scripts/task.mjs ${Object.keys(TASKS).join(' | ')}\n`);
  process.exit(2);
}
process.exitCode = await task(args).catch((thrown) => {
  if (!(thrown instanceof SetupError)) throw thrown;
  process.stderr.write(`${thrown.message}\n`);
  return 1;
});

/** @param {string[]} options */
async function build(options) {
  setUp(root, BUILD_TOOLS);
  return run(process.execPath, [resolve(root, 'build.mjs'), ...options]);
}

/**
 * dist/packages. With --test, installs the packages in new systems of Debian and Ubuntu and checks them with lintian, rpmlint and rpm instead.
 * @param {string[]} options
 */
async function packages(options) {
  const isTest = options[0] === '--test';
  if (isTest) requireRoot('debootstrap makes systems to install the packages in');
  setUp(root, [...BUILD_TOOLS, ...PACKAGE_TOOLS, ...(isTest ? PACKAGE_TEST_TOOLS : [])]);
  if (await buildIfStale()) return 1;
  const { file: node } = nodeBase(root);
  const status = await run(node, [resolve(root, 'packaging/package.mjs'), ...(isTest ? [] : options)]);
  if (status !== 0 || !isTest) return status;
  return run(node, ['--no-warnings', resolve(root, 'test/packages/main.ts')]);
}

/** @param {string[]} options */
async function countdash(options) {
  requireRoot('the example creates network namespaces');
  setUp(root, TOOLS);
  const wanted = withEnvoy(options);
  return (await buildIfStale()) || run(resolve(root, 'dist/bin/weft'), ['countdash', ...wanted]);
}

/** `--envoy` without a path means the executable in PATH; where there is none, one is downloaded. @param {string[]} options */
function withEnvoy(options) {
  const at = options.indexOf('--envoy');
  if (at < 0 || !(options[at + 1] ?? '-').startsWith('-') || isInstalled('envoy')) return options;
  setUp(root, ENVOY_TOOLS);
  const program = provideEnvoy(root, 'it is the sidecar of the example (--envoy), and not in PATH');
  if (program === undefined) throw new SetupError('install Envoy, or name it: --envoy PATH');
  return options.with(at, `--envoy=${program}`);
}

/** Everything; with parts of paths, only the test files whose path contains one of them. @param {string[]} parts */
async function test(parts) {
  requireRoot('the tests create network namespaces; "npm run unit" needs no root');
  setUp(root, [...BUILD_TOOLS, ...TOOLS, ...TEST_TOOLS, ...PACKAGE_TOOLS]);
  if (parts.length === 0 || parts.some((part) => part.includes('firewall'))) provideFirewalld(root);
  if (parts.length === 0 || parts.some((part) => part.includes('envoy'))) {
    setUp(root, ENVOY_TOOLS);
    provideEnvoy(root, 'tests run it as the sidecar');
  }
  if (await buildIfStale()) return 1;
  if (parts.length === 0 && !(await checkSources())) return 1;
  return runTests(parts);
}

/** Tests of pure code: as any user, without network, namespaces or built executables. @param {string[]} parts */
async function unit(parts) {
  setUp(root, []);
  return runTests(parts.length === 0 ? ['test/unit/'] : parts.map((part) => `test/unit/${part}`));
}

/** Tests that create network namespaces. @param {string[]} parts */
async function host(parts) {
  return test(parts.length === 0 ? ['test/host/', 'firewall'] : parts.map((part) => `test/host/${part}`));
}

async function lint() {
  setUp(root, []);
  return (await runAll([ESLINT, CYCLES, NAMES, PRETTIER])) ? 0 : 1;
}

async function typecheck() {
  setUp(root, []);
  return (await runAll([TYPES])) ? 0 : 1;
}

/** Coverage of the sources by the unit tests: a table, and dist/coverage/index.html. */
async function coverage() {
  setUp(root, []);
  const { file: node } = nodeBase(root);
  const report = resolve(root, 'dist/coverage');
  mkdirSync(report, { recursive: true });
  return run(node, [
    resolve(root, 'node_modules/c8/bin/c8.js'),
    ...['--all', '--src', 'shared', '--src', 'plugins', '--src', 'conflist'],
    ...['--include', 'shared/**', '--include', 'plugins/**', '--include', 'conflist/**'],
    ...['--reporter', 'text-summary', '--reporter', 'html', '--reports-dir', report],
    ...[node, '--no-warnings', resolve(root, 'test/run.ts'), 'test/unit/'],
  ]);
}

async function checkSources() {
  return runAll([ESLINT, CYCLES, NAMES, PRETTIER, TYPES], 'no test was started');
}

/** @param {readonly Check[]} checks @param {string} [consequence] */
async function runAll(checks, consequence) {
  const { file: node } = nodeBase(root);
  for (const { what, script, options } of checks) {
    process.stdout.write(`checking ${what}\n`);
    if ((await run(node, [resolve(root, 'node_modules', script), ...options])) !== 0) {
      process.stdout.write(
        `0 passed, 1 failed: ${what}${consequence === undefined ? '' : ` (${consequence})`}\n`,
      );
      return false;
    }
  }
  return true;
}

/** @param {string[]} parts */
async function runTests(parts) {
  const { file: node } = nodeBase(root);
  return run(node, ['--no-warnings', resolve(root, 'test/run.ts'), ...parts]);
}

/**
 * One benchmark by its name, with its options; without a name all of them, one after the other, with their defaults.
 * @param {string[]} options @returns {Promise<number>} 1 if one of them misses a figure of the performance budget
 */
async function bench([which, ...options]) {
  const folder = resolve(root, 'test/bench');
  const names = readdirSync(folder)
    .filter((file) => file.endsWith('.ts'))
    .map((file) => file.slice(0, -3));
  if (which !== undefined && !names.includes(which)) {
    throw new SetupError(`usage: npm run bench [-- ${names.join(' | ')} [options]]`);
  }
  requireRoot('the benchmarks create network namespaces');
  setUp(root, [...BUILD_TOOLS, ...TOOLS, ...TEST_TOOLS, ...BENCH_TOOLS]);
  if (await buildIfStale()) return 1;
  const { file: node } = nodeBase(root);
  let missed = 0;
  for (const name of which === undefined ? names : [which]) {
    if (which === undefined) process.stdout.write(`\n== ${name}\n`);
    missed |= await run(node, ['--no-warnings', resolve(folder, `${name}.ts`), ...options]);
  }
  return missed === 0 ? 0 : 1;
}

/** Random operations against a model of the host: test/soak/main.ts. @param {string[]} options */
async function soak(options) {
  return longTest('test/soak/main.ts', options);
}

/** Hostile calls of the executables, or hostile answers to the launcher: test/fuzz/main.ts. @param {string[]} options */
async function fuzz(options) {
  if (options.includes('--launcher')) setUp(root, LAUNCHER_FUZZ_TOOLS);
  return longTest('test/fuzz/main.ts', options);
}

/** Test files on the kernels of Debian's releases, in QEMU: scripts/vm.mjs. @param {string[]} args */
async function vm(args) {
  requireRoot('debootstrap makes the file system of the virtual machines');
  setUp(root, [...BUILD_TOOLS, ...VM_TOOLS]);
  return (await buildIfStale()) || runMachines(root, args);
}

/** @param {string} script @param {string[]} options */
async function longTest(script, options) {
  requireRoot('it creates network namespaces');
  setUp(root, [...TOOLS, ...TEST_TOOLS]);
  if (await buildIfStale()) return 1;
  const { file: node } = nodeBase(root);
  return run(node, ['--no-warnings', resolve(root, script), ...options]);
}

async function buildIfStale() {
  if (isUpToDate(root)) return 0;
  process.stdout.write('building dist/bin (the sources changed)\n');
  return run(process.execPath, [resolve(root, 'build.mjs')]);
}

/** @param {string} why */
function requireRoot(why) {
  if (process.getuid?.() !== 0) throw new SetupError(`run this as root: ${why}`);
}

/**
 * Runs a program to its end. Ctrl-C reaches the whole process group, so the program ends by itself and has time to clean up; a signal
 * to this process alone is forwarded.
 * @param {string} file @param {string[]} options @returns {Promise<number>} exit code
 */
function run(file, options) {
  return new Promise((done, fail) => {
    const child = spawn(file, options, { cwd: root, stdio: 'inherit' });
    const ignore = () => undefined;
    const forward = (/** @type {NodeJS.Signals} */ signal) => child.kill(signal);
    process.on('SIGINT', ignore).on('SIGTERM', forward).on('SIGHUP', forward);
    child.on('error', fail);
    child.on('close', (code, signal) => {
      process.off('SIGINT', ignore).off('SIGTERM', forward).off('SIGHUP', forward);
      done(code ?? (signal === null ? 1 : 128));
    });
  });
}
