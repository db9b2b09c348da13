import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../support/suite.ts';

const test = suite('prewarm');
const FILE = resolve(import.meta.dirname, '../../../shared/kernel/prewarm.ts');

test('runs without node:ffi and without a system call on the network', () => {
  const script = `
    process.getBuiltinModule = () => { throw new Error('no builtin may be loaded now'); };
    const { prewarmKernel } = await import(${JSON.stringify(FILE)});
    prewarmKernel();
    prewarmKernel();
    console.log(process.moduleLoadList.filter((name) => / ffi$/.test(name)).length);`;
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
  });
  assert.is(stderr, '');
  assert.is(status, 0);
  assert.is(stdout.trim(), '0');
});

test.run();
