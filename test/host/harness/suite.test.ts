/** The runner's own promises: a hanging test, a blocked thread, a forgotten run() and an early exit all fail. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { resolve, join } from 'node:path';
import * as assert from 'uvu/assert';
import { runFile, type FileReport } from '../../support/run-file.ts';
import { suite } from '../../support/suite.ts';

const test = suite('test runner', { limit: 60 });
const support = resolve(import.meta.dirname, '../../support/suite.ts');

async function reportOf(body: string): Promise<FileReport> {
  const folder = mkdtempSync('/tmp/weft-runner-');
  const file = join(folder, 'sample.test.ts');
  writeFileSync(
    file,
    `import { suite } from '${support}';\nconst test = suite('sample', { limit: 1 });\n${body}\n`,
  );
  try {
    return await runFile(file, false);
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

const SNEAKY: readonly [title: string, body: string, error: RegExp][] = [
  [
    'a promise that is not awaited and rejected later',
    `test('a', () => void new Promise((_, reject) => setTimeout(() => reject(new Error('late')), 50))); test.run();`,
    /exit code 1/,
  ],
  [
    'an exception after the last test',
    `test('a', () => {}); test.after(() => void setTimeout(() => { throw new Error('late'); }, 50)); test.run();`,
    /exit code 1/,
  ],
  [
    'an after hook that fails',
    `test('a', () => {}); test.after(() => Promise.reject(new Error('hook'))); test.run();`,
    /hook/,
  ],
  [
    'an afterEach hook that fails',
    `test('a', () => {}); test.afterEach(() => { throw new Error('hook'); }); test.run();`,
    /hook/,
  ],
  [
    'an after hook that never ends',
    `test('a', () => {}); test.after(() => new Promise(() => undefined)); test.run();`,
    /exit code 1/,
  ],
  [
    'a process that is ended in a hook',
    `test('a', () => {}); test.after(() => process.exit(0)); test.run();`,
    /exit code 1/,
  ],
  [
    'a process that ends itself from below, with exit code 0',
    `test('a', () => {}); test.after(() => process.reallyExit(0)); test.run();`,
    /ended before its end/,
  ],
  [
    'one suite run twice in place of another',
    `const other = suite('other'); test('a', () => {}); other('b', () => {}); test.run(); test('c', () => {}); test.run();`,
    /never ran: other: b/,
  ],
];
for (const [title, body, error] of SNEAKY) {
  test(`does not pass: ${title}`, async () => {
    const { failures } = await reportOf(body);
    assert.ok(failures.length >= 1);
    assert.match(failures.map((one) => one.error).join(' '), error);
  });
}

test('a part of a path that no test file has is refused, also beside one that some have', () => {
  const run = (...parts: string[]): { status: number | null; stderr: string } =>
    spawnSync(process.execPath, ['--no-warnings', resolve(import.meta.dirname, '../../run.ts'), ...parts], {
      encoding: 'utf8',
    });
  for (const parts of [['no-such-test'], ['shared/cni/network', 'no-such-test']]) {
    const { status, stderr } = run(...parts);
    assert.is(status, 1);
    assert.is(stderr, 'no test file matches no-such-test\n');
  }
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
