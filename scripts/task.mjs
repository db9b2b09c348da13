/**
 * usage: node scripts/task.mjs build | countdash [options] | test [part of a path ...] | bench [<name> [options]]
 * The commands of package.json, each of which sets up what it needs first. Runs on plain Node >= 20.
 */
import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { nodeBase } from '../build/base.mjs';
import { provideFirewalld } from './firewalld.mjs';
import { BENCH_TOOLS, SetupError, setUp, TEST_TOOLS, TOOLS } from './setup.mjs';
import { isUpToDate } from '../build/stamp.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const TASKS = { build, countdash, test, bench };

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
  setUp(root, []);
  return run(process.execPath, [resolve(root, 'build.mjs'), ...options]);
}

/** @param {string[]} options */
async function countdash(options) {
  requireRoot('the example makes network namespaces');
  setUp(root, TOOLS);
  return (await buildIfStale()) || run(resolve(root, 'dist/bin/weft'), ['countdash', ...options]);
}

/** Everything, or, with parts of paths, only the tests of those files. @param {string[]} parts */
async function test(parts) {
  requireRoot('the tests make network namespaces');
  setUp(root, [...TOOLS, ...TEST_TOOLS]);
  if (parts.length === 0 || parts.some((part) => part.includes('firewall'))) provideFirewalld(root);
  if (await buildIfStale()) return 1;
  const { file: node } = nodeBase(root);
  if (parts.length === 0 && !(await checkSources(node))) return 1;
  return run(node, ['--no-warnings', resolve(root, 'test/run.ts'), ...parts]);
}

/** @param {string} node */
async function checkSources(node) {
  const checks = [
    ['lint', 'eslint/bin/eslint.js', '.'],
    ['format', 'prettier/bin/prettier.cjs', '--check', '--log-level=warn', '.'],
    ['types', 'typescript/bin/tsc', '-p', '.'],
  ];
  for (const [what = '', script = '', ...options] of checks) {
    process.stdout.write(`checking ${what}\n`);
    if ((await run(node, [resolve(root, 'node_modules', script), ...options])) !== 0) {
      process.stdout.write(`0 passed, 1 failed: ${what} (no test was started)\n`);
      return false;
    }
  }
  return true;
}

/**
 * One benchmark by its name, with its options; without a name all of them, one after the other, with their defaults.
 * @param {string[]} options @returns {Promise<number>} 1 if one of them misses a figure that is to be held
 */
async function bench([which, ...options]) {
  const folder = resolve(root, 'test/bench');
  const names = readdirSync(folder)
    .filter((file) => file.endsWith('.ts'))
    .map((file) => file.slice(0, -3));
  if (which !== undefined && !names.includes(which)) {
    throw new SetupError(`usage: npm run bench [-- ${names.join(' | ')} [options]]`);
  }
  requireRoot('the benchmarks make network namespaces');
  setUp(root, [...TOOLS, ...TEST_TOOLS, ...BENCH_TOOLS]);
  if (await buildIfStale()) return 1;
  const { file: node } = nodeBase(root);
  let missed = 0;
  for (const name of which === undefined ? names : [which]) {
    if (which === undefined) process.stdout.write(`\n== ${name}\n`);
    missed |= await run(node, ['--no-warnings', resolve(folder, `${name}.ts`), ...options]);
  }
  return missed === 0 ? 0 : 1;
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
 * Runs a program to its end. Ctrl-C reaches the whole process group, so the program ends by itself and has its time to clean up; a
 * signal to this process alone is passed on.
 * @param {string} file @param {string[]} options @returns {Promise<number>} exit code
 */
function run(file, options) {
  return new Promise((done, fail) => {
    const child = spawn(file, options, { cwd: root, stdio: 'inherit' });
    const ignore = () => undefined;
    const passOn = (/** @type {NodeJS.Signals} */ signal) => child.kill(signal);
    process.on('SIGINT', ignore).on('SIGTERM', passOn).on('SIGHUP', passOn);
    child.on('error', fail);
    child.on('close', (code, signal) => {
      process.off('SIGINT', ignore).off('SIGTERM', passOn).off('SIGHUP', passOn);
      done(code ?? (signal === null ? 1 : 128));
    });
  });
}
