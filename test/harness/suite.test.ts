/** The runner's own promises: a hanging test, a blocked thread, a forgotten run() and an early exit all fail. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { resolve, join } from 'node:path';
import * as assert from 'uvu/assert';
import { runFile, type FileReport } from '../support/run-file.ts';
import { suite } from '../support/suite.ts';

const test = suite('test runner', { limit: 60 });
const support = resolve(import.meta.dirname, '../support/suite.ts');

async function reportOf(body: string): Promise<FileReport> {
  const folder = mkdtempSync('/tmp/weft-runner-');
  const file = join(folder, 'sample.test.ts');
  writeFileSync(
    file,
    `import { suite } from '${support}';\nconst test = suite('sample', { limit: 1 });\n${body}\n`,
  );
  try {
    return await runFile(file);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('counts passing and failing tests', async () => {
  const report = await reportOf(
    `test('a', () => {}); test('b', () => { throw new Error('no'); }); test.run();`,
  );
  assert.is(report.passed, 1);
  assert.is(report.failures.length, 1);
  assert.match(report.failures[0]?.error ?? '', 'no');
});

test('a promise that never settles fails at the limit', async () => {
  const report = await reportOf(
    `test('hang', () => new Promise((done) => setTimeout(done, 9999))); test.run();`,
  );
  assert.match(report.failures[0]?.error ?? '', 'longer than its limit of 1 s');
});

test('a blocked thread is killed', async () => {
  const report = await reportOf(`test('block', () => { for (;;); }); test.run();`);
  assert.match(report.failures[0]?.error ?? '', 'hung past its time limit');
});

test('a forgotten run() fails', async () => {
  const report = await reportOf(`test('never', () => {});`);
  assert.match(report.failures[0]?.error ?? '', 'is suite.run() missing?');
});

test('an exit in the middle fails', async () => {
  const report = await reportOf(`test('leave', () => process.exit(0)); test.run();`);
  assert.is(report.failures.length, 1);
});

test('a failing hook fails', async () => {
  const report = await reportOf(
    `test.before(() => { throw new Error('hook'); }); test('a', () => {}); test.run();`,
  );
  assert.ok(report.failures.length >= 1);
});

test('a file without tests fails', async () => {
  assert.is((await reportOf('')).failures.length, 1);
});

test('a skip carries its reason', async () => {
  const report = await reportOf(`test('a', () => {}); test.skip('b', 'no such kernel'); test.run();`);
  assert.equal(report.skipped, [{ title: 'sample: b', reason: 'no such kernel' }]);
  assert.is(report.failures.length, 0);
});

test.run();
