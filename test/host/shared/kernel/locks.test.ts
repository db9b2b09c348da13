import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmdirSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import {
  LOCK_DIRECTORY,
  removeUnusedLocks,
  withFileLock,
  withLock,
  withNamespaceLock,
} from '../../../../shared/kernel/locks.ts';
import { withCallDeadline } from '../../../../shared/kernel/deadline.ts';
import { openNamespace } from '../../../../shared/kernel/namespace.ts';
import { suite } from '../../../support/suite.ts';
import { runPluginProcess } from '../../../support/plugin.ts';
import { cniError, makeNamespace, run } from '../../../support/kernel.ts';

const test = suite('locks', { limit: 60 });
const MODULE = resolve(import.meta.dirname, '../../../../shared/kernel/locks.ts');
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

test('the work runs while the lock is held, and its result is returned', () => {
  const result = withFileLock(LOCK, { timeoutMs: 1000 }, () => {
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
      withFileLock(LOCK, { timeoutMs: 1000 }, () => {
        throw thrown;
      }),
    (caught: unknown) => caught === thrown,
  );
  assert.ok(isFree());
  assert.is(readdirSync('/proc/self/fd').length, descriptors);
});

test('the file is created with the given mode and stays; an existing one is unchanged', () => {
  withFileLock('/run/lock-test/new', { timeoutMs: 100 }, () => undefined);
  assert.is(statSync('/run/lock-test/new').mode & 0o777, 0o600);
  withFileLock('/run/lock-test/newer', { mode: 0o750 }, () => undefined);
  assert.is(statSync('/run/lock-test/newer').mode & 0o777, 0o750);
  writeFileSync('/run/lock-test/old', 'content', { mode: 0o640 });
  withFileLock('/run/lock-test/old', { timeoutMs: 100 }, () => undefined);
  assert.is(statSync('/run/lock-test/old').mode & 0o777, 0o640);
  assert.is(run('cat', '/run/lock-test/old'), 'content');
});

test('a lock that another process holds is error 11 with that process, and the work has not run', async () => {
  const other = await holder();
  const descriptors = readdirSync('/proc/self/fd').length;
  const start = process.hrtime.bigint();
  let ran = false;
  const error = cniError(11, () => withFileLock(LOCK, { timeoutMs: 200 }, () => (ran = true)));
  const took = Number(process.hrtime.bigint() - start) / 1e6;
  assert.match(
    error.message,
    new RegExp(
      `^timed out after 0\\.\\d s waiting for lock ${LOCK}, held by process \\d+ \\((sh|dash|bash|flock)\\)$`,
    ),
  );
  assert.ok(took >= 195 && took < 3000, `${took} ms`);
  assert.is(ran, false);
  assert.is(readdirSync('/proc/self/fd').length, descriptors);
  await other.release();
  assert.is(
    withFileLock(LOCK, { timeoutMs: 200 }, () => 'now'),
    'now',
  );
});

test('when the other process releases it in time, the work runs', () => {
  const child = spawn('flock', [LOCK, 'sleep', '0.3'], { stdio: 'ignore' });
  while (isFree()) run('true');
  assert.is(
    withFileLock(LOCK, { timeoutMs: 10_000 }, () => 'mine'),
    'mine',
  );
  child.unref();
});

test('when the file is removed and created anew, the new file is the lock', async () => {
  const script = `
    console.log('waiting');
    const { withFileLock } = await import(${JSON.stringify(MODULE)});
    withFileLock(${JSON.stringify(LOCK)}, { timeoutMs: 30000 }, () => console.log('entered'));`;
  const removed = await holder();
  const waiter = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(waiter.stdout, 'data');
  const entered = once(waiter.stdout, 'data');
  rmSync(LOCK);
  const successor = await holder();
  await removed.release();
  const early = await Promise.race([entered, new Promise((resolve) => setTimeout(resolve, 300, 'waits'))]);
  await successor.release();
  await entered;
  assert.is(early, 'waits');
});

test('a lock is not re-entrant', () => {
  withFileLock(LOCK, { timeoutMs: 1000 }, () =>
    cniError(11, () => withFileLock(LOCK, { timeoutMs: 30 }, () => undefined)),
  );
});

test('children started under the lock do not keep it', () => {
  const child = withFileLock(LOCK, { timeoutMs: 1000 }, () =>
    spawn('sleep', ['5'], { stdio: 'ignore', detached: true }),
  );
  assert.ok(isFree());
  child.kill('SIGKILL');
});

test('a killed holder releases the lock', async () => {
  const script = `
    const { withFileLock } = await import(${JSON.stringify(MODULE)});
    withFileLock(${JSON.stringify(LOCK)}, { timeoutMs: 1000 }, () => { console.log('held'); Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0); });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  assert.not.ok(isFree());
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.is(
    withFileLock(LOCK, { timeoutMs: 1000 }, () => 'free'),
    'free',
  );
});

test('no update is lost with many processes', async () => {
  writeFileSync('/run/lock-test/counter', '0');
  const script = `
    const { withFileLock } = await import(${JSON.stringify(MODULE)});
    const fs = await import('node:fs');
    for (let round = 0; round < 50; round++) {
      withFileLock(${JSON.stringify(LOCK)}, { timeoutMs: 30000 }, () => {
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

test('a missing directory is the fs error', () => {
  assert.throws(
    () => withFileLock('/run/nowhere/lock', { timeoutMs: 100 }, () => undefined),
    (thrown: NodeJS.ErrnoException) => thrown.code === 'ENOENT',
  );
});

test('a lock file that is a FIFO, a directory or a symbolic link is refused at once', () => {
  run('mkfifo', '/run/lock-test/fifo');
  mkdirSync('/run/lock-test/directory');
  writeFileSync('/run/lock-test/victim', '');
  symlinkSync('/run/lock-test/victim', '/run/lock-test/link');
  const message = (name: string): string =>
    cniError(5, () => withFileLock(`/run/lock-test/${name}`, {}, () => undefined)).message;
  assert.match(message('fifo'), 'not a regular file (FIFO)');
  assert.match(message('directory'), 'not a regular file (directory)');
  assert.match(message('link'), 'not a regular file (symbolic link)');
  withFileLock('/run/lock-test/link', { followLinks: true }, () => undefined);
});

test('locks of our own are files that only root can open, and leave nothing behind', () => {
  withLock('sample', () => {
    assert.is(statSync('/run/weft').mode & 0o777, 0o755);
    assert.is(statSync(LOCK_DIRECTORY).mode & 0o777, 0o700);
    assert.is(statSync(`${LOCK_DIRECTORY}/sample`).mode & 0o777, 0o600);
    const other = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
    assert.is(spawnSync('flock', ['-n', `${LOCK_DIRECTORY}/sample`, 'true']).status, 1, 'held');
    const tried = spawnSync('setpriv', [...other.slice(1), 'flock', '-n', LOCK_DIRECTORY, 'true']);
    assert.is.not(tried.status, 0, 'not even the directory can be opened');
  });
  assert.equal(readdirSync(LOCK_DIRECTORY), []);
});

test('every path to a network namespace means the same lock', () => {
  const path = makeNamespace('locked');
  run('ln', '-s', path, '/run/lock-test/namespace-link');
  using one = openNamespace(path);
  using two = openNamespace('/run/lock-test/namespace-link');
  withNamespaceLock(() => {
    const [name = ''] = readdirSync(LOCK_DIRECTORY);
    const { dev, ino } = statSync(path);
    assert.is(name, `netns-${dev}-${ino}`);
    assert.is(spawnSync('flock', ['-n', `${LOCK_DIRECTORY}/${name}`, 'true']).status, 1);
    withNamespaceLock(() => assert.is(readdirSync(LOCK_DIRECTORY).length, 2), undefined);
  }, one);
  withNamespaceLock(() => assert.is(readdirSync(LOCK_DIRECTORY).length, 1), two);
  assert.equal(readdirSync(LOCK_DIRECTORY), []);
});

test('a process that locks the namespace itself delays nothing', () => {
  const holder = spawn('flock', ['--no-fork', '/proc/self/ns/net', 'sleep', '60'], { stdio: 'ignore' });
  while (spawnSync('flock', ['-n', '/proc/self/ns/net', 'true']).status === 0) run('true');
  const start = Date.now();
  withNamespaceLock(() => undefined);
  assert.ok(Date.now() - start < 2000);
  holder.kill('SIGKILL');
});

test('where /run is read-only, the namespace itself is locked', () => {
  rmSync('/run/weft', { recursive: true, force: true });
  run('mount', '--bind', '/run', '/run');
  run('mount', '-o', 'remount,bind,ro', '/run');
  try {
    withNamespaceLock(() => {
      assert.is(spawnSync('flock', ['-n', '/proc/self/ns/net', 'true']).status, 1);
    });
    assert.match(cniError(5, () => withLock('sample', () => undefined)).message, LOCK_DIRECTORY);
  } finally {
    run('umount', '/run');
  }
});

test('a directory that another user owns is not used', () => {
  rmSync('/run/weft', { recursive: true, force: true });
  mkdirSync(LOCK_DIRECTORY, { recursive: true, mode: 0o700 });
  run('chown', '65534', LOCK_DIRECTORY);
  withNamespaceLock(() => assert.equal(readdirSync(LOCK_DIRECTORY), []));
  rmdirSync(LOCK_DIRECTORY);
  symlinkSync('/run/lock-test', LOCK_DIRECTORY);
  const before = readdirSync('/run/lock-test').length;
  withNamespaceLock(() => assert.is(readdirSync('/run/lock-test').length, before));
  rmSync(LOCK_DIRECTORY);
});

test('lock files of killed processes are removed, also by GC; those in use are not', () => {
  withLock('used', () => {
    writeFileSync(`${LOCK_DIRECTORY}/netns-4-1`, '', { mode: 0o600 });
    removeUnusedLocks();
    assert.equal(readdirSync(LOCK_DIRECTORY), ['used']);
    writeFileSync(`${LOCK_DIRECTORY}/netns-4-2`, '', { mode: 0o600 });
    const stdin = { cniVersion: '1.1.0', name: 'net1', type: 'loopback', 'cni.dev/valid-attachments': [] };
    const gc = runPluginProcess('loopback', { command: 'GC', env: { CNI_PATH: '/opt/cni/bin' }, stdin });
    assert.equal(gc, { exitCode: 0, stdout: '', stderr: '' });
    assert.equal(readdirSync(LOCK_DIRECTORY), ['used']);
  });
});

test('no update is lost although each holder removes the lock file', async () => {
  writeFileSync('/run/lock-test/counter', '0');
  const script = `
    const { withLock } = await import(${JSON.stringify(MODULE)});
    const fs = await import('node:fs');
    for (let round = 0; round < 100; round++) {
      withLock('turns', () => {
        fs.writeFileSync('/run/lock-test/counter', String(Number(fs.readFileSync('/run/lock-test/counter', 'utf8')) + 1));
      });
    }`;
  const children = Array.from({ length: 4 }, () =>
    spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit' }),
  );
  const codes = await Promise.all(children.map(async (child) => (await once(child, 'exit'))[0] as number));
  assert.equal(codes, [0, 0, 0, 0]);
  assert.is(run('cat', '/run/lock-test/counter'), '400');
  assert.equal(readdirSync(LOCK_DIRECTORY), []);
});

test('a call that queues has its time again whenever the lock is handed on', async () => {
  mkdirSync(LOCK_DIRECTORY, { recursive: true, mode: 0o700 });
  const script = `exec 9>queue; flock 9; echo held
    for turn in 1 2 3; do sleep 0.2; exec 8>next; flock 8; mv next queue; exec 9>&8 8>&-; done; rm queue`;
  const holders = spawn('sh', ['-c', script], { cwd: LOCK_DIRECTORY, stdio: ['ignore', 'pipe', 'inherit'] });
  await once(holders.stdout, 'data');
  const began = Date.now();
  withCallDeadline(() => withLock('queue', () => undefined), 300);
  assert.ok(Date.now() - began > 500, 'all three held it before');
});

test.run();
