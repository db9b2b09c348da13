import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../support/suite.ts';

const test = suite('build: positions of stack traces');
const ROOT = resolve(import.meta.dirname, '../../..');

function resolved(trace: string): string {
  const { stdout, status } = spawnSync(process.execPath, [resolve(ROOT, 'scripts/stack.mjs')], {
    input: trace,
    encoding: 'utf8',
  });
  assert.is(status, 0);
  return stdout;
}

test('positions in the bundles become positions in files of this repository', () => {
  for (const bundle of ['plugins', 'weft', 'countdash', 'agent']) {
    const text = resolved(`    at f (${bundle}.cjs:1:30000)\n`);
    const [, file = ''] = /at f \(([^:]+):\d+:\d+\)/.exec(text) ?? [];
    assert.ok(existsSync(resolve(ROOT, file)), `${bundle}: ${text}`);
    assert.not.match(file, '.cjs:');
  }
});

test('positions elsewhere stay as they are', () => {
  const trace = '    at node:internal/process/task_queues:104:5\n    at unknown.cjs:1:2\n';
  assert.is(resolved(trace), trace);
});

test.run();
