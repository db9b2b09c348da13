import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, symlinkSync, utimesSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { isUpToDate } from '../../../build/stamp.mjs';
import { suite } from '../../support/suite.ts';

const test = suite('build: reproducible', { limit: 400 });

const ROOT = resolve(import.meta.dirname, '../../..');
const SOURCES = [
  'build.mjs',
  'package.json',
  'package-lock.json',
  'build',
  'agent',
  'launcher',
  'cli',
  'conflist',
  'examples',
  'packaging',
  'plugins',
  'shared',
];

test('the same sources give the same bytes in another folder, environment, user and hour', () => {
  // The runner has built dist/bin, unless somebody is editing.
  assert.ok(isUpToDate(ROOT), 'dist/bin is older than its sources; run "npm run build"');
  const first = hashOf(join(ROOT, 'dist/bin/bridge'));
  mkdirSync('/opt/a much longer/path', { recursive: true });
  const elsewhere = {
    PATH: process.env['PATH'] ?? '',
    HOME: '/nonexistent',
    TZ: 'Asia/Tokyo',
    LANG: 'tr_TR.UTF-8',
  };
  const second = buildIn('/opt/a much longer/path', elsewhere, [
    'setpriv',
    '--reuid=65534',
    '--regid=65534',
    '--clear-groups',
  ]);
  assert.is(second, first);
});

test.run();

/** Copies the sources, builds there, and returns the executable's SHA-256. */
function buildIn(folder: string, env: Record<string, string>, prefix: readonly string[]): string {
  for (const source of SOURCES) cpSync(join(ROOT, source), join(folder, source), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  utimesSync(join(folder, 'cli/main.ts'), new Date(0), new Date(0));
  if (prefix.length > 0) execFileSync('chown', ['-R', '65534:65534', folder]);
  const [program, ...args] = [...prefix, process.execPath, join(folder, 'build.mjs'), '--no-timing'];
  const said = execFileSync(program, args, { env, cwd: '/', encoding: 'utf8' });
  assert.match(said, 'tuned: ');
  assert.not.match(said, 'warning');
  return hashOf(join(folder, 'dist/bin/bridge'));
}

function hashOf(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}
