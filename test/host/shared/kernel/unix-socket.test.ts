import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { deadlineIn } from '../../../../shared/kernel/deadline.ts';
import { isErrno } from '../../../../shared/kernel/errno.ts';
import { UnixSocket } from '../../../../shared/kernel/unix-socket.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('unix socket', { limit: 30 });
const children: ChildProcess[] = [];
test.after(() => children.forEach((child) => child.kill('SIGKILL')));

/** Listens in a process of its own; `peer` is each connection. */
async function listen(path: string, behaviour: string): Promise<ChildProcess> {
  const script = `require('node:net').createServer((peer) => { peer.on('error', () => undefined); ${behaviour} })
    .listen({ path: ${JSON.stringify(path)}, backlog: 1 }, () => console.log('ready'));`;
  const child = spawn(process.execPath, ['--no-warnings', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  await once(child.stdout, 'data');
  return child;
}

function errorOf(run: () => unknown): unknown {
  try {
    run();
  } catch (thrown) {
    return thrown;
  }
  throw new Error('nothing was thrown');
}

const descriptors = (): number => readdirSync('/proc/self/fd').length;

test('megabytes there and back, by path and by abstract name', async () => {
  for (const path of ['/run/echo', '\0echo-of-this-test']) {
    await listen(path, 'peer.pipe(peer);');
    using socket = UnixSocket.connect(path, deadlineIn(5_000));
    const sent = Buffer.from(Uint8Array.from({ length: 100_000 }, (_, at) => at % 251));
    const received: Buffer[] = [];
    for (let at = 0; at < sent.length; at += 10_000) {
      socket.write(sent.subarray(at, at + 10_000), deadlineIn(5_000));
      for (let left = 10_000; left > 0;) {
        const bytes = socket.read(deadlineIn(5_000));
        received.push(bytes);
        left -= bytes.length;
      }
    }
    assert.ok(Buffer.concat(received).equals(sent));
  }
});

test('nobody listens: named with its path, and no descriptor is left', async () => {
  const before = descriptors();
  assert.match(
    String(errorOf(() => UnixSocket.connect('/run/none', deadlineIn(100)))),
    /connect\(\/run\/none\): ENOENT/,
  );
  const child = await listen('/run/left', '');
  child.kill('SIGKILL');
  await once(child, 'exit');
  const refused = errorOf(() => UnixSocket.connect('/run/left', deadlineIn(100)));
  assert.ok(isErrno(refused, 'ECONNREFUSED'), String(refused));
  const long = errorOf(() => UnixSocket.connect(`/run/${'x'.repeat(120)}`, deadlineIn(100)));
  assert.ok(isErrno(long, 'ENAMETOOLONG'), String(long));
  assert.ok(descriptors() <= before + 1);
});

test('a listener that accepts nobody, a peer that reads nothing or says nothing: over in time', async () => {
  const began = Date.now();
  const child = await listen('/run/stopped', '');
  const socket = UnixSocket.connect('/run/stopped', deadlineIn(1_000));
  child.kill('SIGSTOP');
  const silent = errorOf(() => socket.read(deadlineIn(100)));
  assert.ok(isErrno(silent, 'ETIMEDOUT'), String(silent));
  const full = errorOf(() => socket.write(Buffer.alloc(64 * 1024 * 1024), deadlineIn(100)));
  assert.ok(isErrno(full, 'EAGAIN'), String(full));
  socket.close();
  const queued: UnixSocket[] = [];
  const busy = errorOf(() => {
    for (let count = 0; count < 10; count++) queued.push(UnixSocket.connect('/run/stopped', deadlineIn(100)));
  });
  assert.ok(isErrno(busy, 'EAGAIN'), String(busy));
  queued.forEach((one) => one.close());
  assert.ok(Date.now() - began < 10_000);
});

test('a peer that has gone', async () => {
  const child = await listen('/run/going', '');
  using socket = UnixSocket.connect('/run/going', deadlineIn(1_000));
  child.kill('SIGKILL');
  await once(child, 'exit');
  const ended = errorOf(() => socket.read(deadlineIn(1_000)));
  assert.ok(isErrno(ended, 'ECONNRESET'), String(ended));
  const broken = errorOf(() => {
    for (let count = 0; count < 3; count++) socket.write(Buffer.from('x'), deadlineIn(1_000));
  });
  assert.ok(isErrno(broken, 'EPIPE'), String(broken));
});

test.run();
