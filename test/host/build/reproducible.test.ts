import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdirSync, readFileSync, utimesSync } from 'node:fs';
import { join, resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { isUpToDate, SOURCES } from '../../../build/stamp.mjs';
import { suite } from '../../support/suite.ts';

const test = suite('build: reproducible', { limit: 400 });

const ROOT = resolve(import.meta.dirname, '../../..');
const NOBODY = 65534;
test('the same sources give the same bytes in another folder, environment, user and hour', () => {
  // The runner has built dist/bin, unless the sources changed since.
  assert.ok(isUpToDate(ROOT), 'dist/bin is older than its sources; run "npm run build"');
  const first = hashOf(join(ROOT, 'dist/bin/bridge'));
  const folder = '/opt/a much longer/path';
  for (const source of SOURCES) cpSync(join(ROOT, source), join(folder, source), { recursive: true });
  utimesSync(join(folder, 'cli/main.ts'), new Date(0), new Date(0));
  mkdirSync(join(folder, 'node_modules'));
  execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, folder]);
  // Not a symbolic link, which the bundler would follow.
  execFileSync('mount', ['--bind', join(ROOT, 'node_modules'), join(folder, 'node_modules')]);
  const said = execFileSync(
    'setpriv',
    [
      `--reuid=${NOBODY}`,
      `--regid=${NOBODY}`,
      '--clear-groups',
      process.execPath,
      join(folder, 'build.mjs'),
      '--no-timing',
    ],
    {
      env: {
        PATH: process.env['PATH'] ?? '',
        HOME: '/nonexistent',
        TZ: 'Asia/Tokyo',
        LANG: 'tr_TR.UTF-8',
      },
      cwd: '/',
      encoding: 'utf8',
    },
  );
  assert.match(said, 'tuned: ');
  assert.not.match(said, 'warning');
  assert.is(hashOf(join(folder, 'dist/bin/bridge')), first);
});

test.run();

function hashOf(file: string): string {
  return createHash('sha256').update(readFileSync(file)).digest('hex');
}
