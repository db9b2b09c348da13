import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs';
import { once } from 'node:events';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../support/suite.ts';

const test = suite('build: work folder');

const MODULE = resolve(import.meta.dirname, '../../../build/work-folder.mjs');

/** A program that makes a work folder in `parent`, says so, and goes on as told. */
function script(parent: string, then: string): string[] {
  const code = `const { workFolder } = await import(${JSON.stringify(MODULE)}); console.log(workFolder(${JSON.stringify(parent)})); ${then}`;
  return ['--input-type=module', '-e', code];
}

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  test(`${signal} takes it away`, async () => {
    const parent = mkdtempSync('/run/dist-');
    const child = spawn(process.execPath, script(parent, 'setInterval(() => {}, 1000)'), {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    assert.is(readdirSync(parent).length, 1);
    child.kill(signal);
    const [code] = (await once(child, 'close')) as [number];
    assert.ok(code > 128);
    assert.equal(readdirSync(parent), []);
  });
}

test('what a killed build left goes with the next one; what a running one works in, and other files, stay', () => {
  const parent = mkdtempSync('/run/dist-');
  const { pid } = spawnSync(process.execPath, script(parent, 'process.kill(process.pid, "SIGKILL")'));
  const [left = ''] = readdirSync(parent);
  assert.match(left, `.work-${pid}-`);
  for (const name of [`.work-${process.pid}-running`, 'bin', '.work-of-another'])
    mkdirSync(`${parent}/${name}`);
  const { status } = spawnSync(process.execPath, script(parent, ''));
  assert.is(status, 0);
  const names = readdirSync(parent);
  assert.not(names.includes(left));
  assert.is(names.length, 4, names.join(' '));
});

test.run();
