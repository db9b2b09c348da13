import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { withLock } from '../../../../shared/kernel/flock.ts';
import { suite } from '../../../support/suite.ts';
import { cniError, run } from './support.ts';

const test = suite('flock', { limit: 60 });
const FLOCK = resolve(import.meta.dirname, '../../../../shared/kernel/flock.ts');
const LOCK = '/run/lock-test/lock';

test.before(() => void mkdirSync('/run/lock-test', { recursive: true }));

/** flock(1) holds the lock from the moment it says so until its standard input ends. */
async function holder(): Promise<{ release(): Promise<void> }> {
  const child = spawn('flock', [LOCK, 'sh', '-c', 'echo held; read line'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  return {
    release: async () => {
      child.stdin.end();
      await once(child, 'exit');
    },
  };
}

const isFree = (): boolean => spawnSync('flock', ['-n', LOCK, 'true']).status === 0;

test('the work runs while the lock is held, and its result comes back', () => {
  const result = withLock(LOCK, 1000, () => {
    assert.not.ok(isFree(), 'flock(1) sees the lock as taken');
    return 42;
  });
  assert.is(result, 42);
  assert.ok(isFree());
});

test('the lock ends when the work throws, with the same error, and no descriptor stays', () => {
  const descriptors = readdirSync('/proc/self/fd').length;
  const thrown = new Error('from the work');
  assert.throws(
    () =>
      withLock(LOCK, 1000, () => {
        throw thrown;
      }),
    (caught: unknown) => caught === thrown,
  );
  assert.ok(isFree());
  assert.is(readdirSync('/proc/self/fd').length, descriptors);
});

test('the file is made with the mode asked for and left in place; a present one is not touched', () => {
  withLock('/run/lock-test/new', 100, () => undefined);
  assert.is(statSync('/run/lock-test/new').mode & 0o777, 0o600);
  withLock('/run/lock-test/newer', 100, () => undefined, 0o750);
  assert.is(statSync('/run/lock-test/newer').mode & 0o777, 0o750);
  writeFileSync('/run/lock-test/old', 'content', { mode: 0o640 });
  withLock('/run/lock-test/old', 100, () => undefined);
  assert.is(statSync('/run/lock-test/old').mode & 0o777, 0o640);
  assert.is(run('cat', '/run/lock-test/old'), 'content');
});

test('held by another process beyond the time limit: error 11, and the work has not run', async () => {
  const other = await holder();
  const descriptors = readdirSync('/proc/self/fd').length;
  const start = process.hrtime.bigint();
  let ran = false;
  const error = cniError(11, () => withLock(LOCK, 200, () => (ran = true)));
  const took = Number(process.hrtime.bigint() - start) / 1e6;
  assert.match(error.message, `lock ${LOCK} is held by another process for over 200 ms`);
  assert.ok(took >= 195 && took < 3000, `${took} ms`);
  assert.is(ran, false);
  assert.is(readdirSync('/proc/self/fd').length, descriptors);
  await other.release();
  assert.is(
    withLock(LOCK, 200, () => 'now'),
    'now',
  );
});

test('released by the other process within the limit: the work runs', () => {
  const child = spawn('flock', [LOCK, 'sleep', '0.3'], { stdio: 'ignore' });
  while (isFree()) run('true');
  assert.is(
    withLock(LOCK, 10_000, () => 'mine'),
    'mine',
  );
  child.unref();
});

test('a file that was removed while one waited is not the lock any more: its successor is waited for', async () => {
  const script = `
    const { withLock } = await import(${JSON.stringify(FLOCK)});
    withLock(${JSON.stringify(LOCK)}, 30000, () => console.log('entered'));`;
  const removed = await holder();
  const waiter = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const entered = once(waiter.stdout, 'data');
  const isOpen = (): boolean =>
    spawnSync('sh', ['-c', `ls -l /proc/${waiter.pid}/fd | grep -q ${LOCK}`]).status === 0;
  while (!isOpen()) run('true');
  rmSync(LOCK);
  const successor = await holder();
  await removed.release();
  const early = await Promise.race([entered, new Promise((resolve) => setTimeout(resolve, 300, 'waits'))]);
  await successor.release();
  await entered;
  assert.is(early, 'waits');
});

test('a lock of one’s own that is still held is not entered twice', () => {
  withLock(LOCK, 1000, () => cniError(11, () => withLock(LOCK, 30, () => undefined)));
});

test('children started under the lock do not keep it', () => {
  const child = withLock(LOCK, 1000, () => spawn('sleep', ['5'], { stdio: 'ignore', detached: true }));
  assert.ok(isFree());
  child.kill('SIGKILL');
});

test('a holder that is killed lets go', async () => {
  const script = `
    const { withLock } = await import(${JSON.stringify(FLOCK)});
    withLock(${JSON.stringify(LOCK)}, 1000, () => { console.log('held'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  assert.not.ok(isFree());
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.is(
    withLock(LOCK, 1000, () => 'free'),
    'free',
  );
});

test('many processes, one counter: nothing is lost', async () => {
  writeFileSync('/run/lock-test/counter', '0');
  const script = `
    const { withLock } = await import(${JSON.stringify(FLOCK)});
    const fs = await import('node:fs');
    for (let round = 0; round < 50; round++) {
      withLock(${JSON.stringify(LOCK)}, 30000, () => {
        fs.writeFileSync('/run/lock-test/counter', String(Number(fs.readFileSync('/run/lock-test/counter', 'utf8')) + 1));
      });
    }`;
  const children = Array.from({ length: 4 }, () =>
    spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit' }),
  );
  const codes = await Promise.all(children.map(async (child) => (await once(child, 'exit'))[0] as number));
  assert.equal(codes, [0, 0, 0, 0]);
  assert.is(run('cat', '/run/lock-test/counter'), '200');
});

test('a folder that does not exist is the fs error, not a made-up one', () => {
  assert.throws(
    () => withLock('/run/nowhere/lock', 100, () => undefined),
    (thrown: NodeJS.ErrnoException) => thrown.code === 'ENOENT',
  );
});

test.run();
