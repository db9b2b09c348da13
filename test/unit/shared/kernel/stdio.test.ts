import { spawnSync } from 'node:child_process';
import { pathToFileURL } from 'node:url';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';

const test = suite('standard input and output');

/** Runs `work` in a process whose stdout is a socket (spawnSync makes no pipe), 20 ms after its call's deadline has passed. */
function afterDeadline(work: string): { status: number | null; stdout: string; stderr: string } {
  const url = (name: string): string =>
    JSON.stringify(pathToFileURL(resolve(import.meta.dirname, `../../../../shared/kernel/${name}.ts`)).href);
  const script = `
    import { readStdin, writeAll } from ${url('stdio')};
    import { sleep, withCallDeadline } from ${url('deadline')};
    withCallDeadline(() => { sleep(21); ${work} }, 1);`;
  const flags = [...process.execArgv, '--no-warnings', '--input-type=module'];
  return spawnSync(process.execPath, [...flags, '-e', script], { encoding: 'utf8', input: '{}' });
}

test('a result that can be written at once is written, although the deadline has passed', () => {
  const { status, stdout, stderr } = afterDeadline("writeAll(1, 'result')");
  assert.equal([status, stdout, stderr], [0, 'result', '']);
});

test('stdin that is complete is read, although the deadline has passed', () => {
  const { status, stdout, stderr } = afterDeadline('process.stdout.write(readStdin(1))');
  assert.equal([status, stdout, stderr], [0, '{}', '']);
});

test.run();
