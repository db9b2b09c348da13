import type { ChildProcess } from 'node:child_process';
import * as assert from 'uvu/assert';
import { DBusConnection, DBusError } from '../../../../../plugins/firewall/firewalld/dbus/connection.ts';
import { isErrno } from '../../../../../shared/kernel/errno.ts';
import { suite } from '../../../../support/suite.ts';
import { listener, missingBus, realBus, SOCKET } from './support.ts';

/** What a conversation does with other sides that are not as they should be, and how long it lasts at most. */
const test = suite('dbus: a conversation', { limit: 30 });
const children: ChildProcess[] = [];
test.after(() => children.forEach((child) => child.kill('SIGKILL')));

async function against(name: string, behaviour: string): Promise<string> {
  const path = `/run/dbus-test-${name}`;
  children.push(await listener(path, behaviour));
  return path;
}

function failure(path: string, timeoutMs = 400): { thrown: unknown; milliseconds: number } {
  const began = Date.now();
  try {
    DBusConnection.open(path, timeoutMs).close();
  } catch (thrown) {
    return { thrown, milliseconds: Date.now() - began };
  }
  throw new Error('a conversation came about');
}

test('nobody there', () => {
  assert.ok(isErrno(failure('/run/nobody').thrown, 'ENOENT'));
});

test('one that says nothing is given up in time', async () => {
  const { thrown, milliseconds } = failure(await against('silent', ''));
  assert.ok(isErrno(thrown, 'ETIMEDOUT'), String(thrown));
  assert.ok(milliseconds >= 400 && milliseconds < 5_000, `${milliseconds} ms`);
});

test('one that says a little all the time is given up as well', async () => {
  const { thrown, milliseconds } = failure(await against('drip', "setInterval(() => peer.write('x'), 20);"));
  assert.ok(isErrno(thrown, 'ETIMEDOUT'), String(thrown));
  assert.ok(milliseconds < 5_000, `${milliseconds} ms`);
});

test('one that hangs up', async () => {
  const { thrown } = failure(await against('closing', 'peer.destroy();'), 5_000);
  assert.ok(isErrno(thrown, 'ECONNRESET', 'EPIPE'), String(thrown));
});

test('one that refuses this user', async () => {
  const { thrown } = failure(
    await against('refusing', "peer.once('data', () => peer.write('REJECTED EXTERNAL\\r\\n'));"),
    5_000,
  );
  assert.ok(isErrno(thrown, 'EACCES'), String(thrown));
  assert.match(String(thrown), /REJECTED EXTERNAL/);
});

test('one that speaks something else behind the greeting', async () => {
  const talk =
    "peer.once('data', () => { peer.write('OK 1\\r\\n'); peer.on('data', () => peer.write('HTTP/1.1 400 Bad Request')); });";
  assert.instance(failure(await against('strange', talk), 5_000).thrown, RangeError);
});

test('one that announces more than anybody would send', async () => {
  const talk =
    "peer.once('data', () => { peer.write('OK 1\\r\\n'); peer.on('data', () => peer.write(Buffer.from('6c02000100ffffff0100000000000000', 'hex'))); });";
  const { thrown } = failure(await against('huge', talk), 5_000);
  assert.instance(thrown, RangeError);
  assert.match(String(thrown), /a message of 4294901\d+ bytes|a message of 42949\d+ bytes/);
});

if (missingBus === undefined) {
  test('the real bus: names, errors by their name, and no program is started for a question', async () => {
    children.push(await realBus());
    using bus = DBusConnection.open(SOCKET, 5_000);
    assert.is(bus.hasOwner('org.freedesktop.DBus'), true);
    assert.is(bus.hasOwner('org.fedoraproject.FirewallD1'), false);
    const call = { destination: 'org.freedesktop.DBus', path: '/', interface: 'org.freedesktop.DBus' };
    assert.throws(
      () => bus.call({ ...call, member: 'GetNameOwner', signature: 's', arguments: ['org.no.such'] }),
      (thrown: unknown) =>
        thrown instanceof DBusError && thrown.code === 'org.freedesktop.DBus.Error.NameHasNoOwner',
    );
    assert.throws(
      () => bus.call({ ...call, destination: 'org.freedesktop.systemd1', member: 'Anything' }),
      (thrown: unknown) =>
        thrown instanceof DBusError && thrown.code === 'org.freedesktop.DBus.Error.NameHasNoOwner',
    );
    const [names] = bus.call({ ...call, member: 'ListNames' });
    assert.ok((names as string[]).includes('org.freedesktop.DBus'));
  });

  test('messages that come byte by byte, and many in one piece', async () => {
    const relay = `const up = net.connect(${JSON.stringify(SOCKET)}); peer.pipe(up); up.on('error', () => undefined);`;
    const single = await against(
      'single',
      `${relay} up.on('data', (bytes) => { for (const byte of bytes) peer.write(Buffer.of(byte)); });`,
    );
    const late = await against(
      'late',
      `${relay} let waiting = []; up.on('data', (bytes) => { waiting.push(bytes); setTimeout(() => { if (waiting.length) peer.write(Buffer.concat(waiting)); waiting = []; }, 100); });`,
    );
    for (const path of [single, late]) {
      using bus = DBusConnection.open(path, 10_000);
      for (const name of ['org.freedesktop.DBus', 'org.no.such', 'org.freedesktop.DBus'])
        assert.is(bus.hasOwner(name), name === 'org.freedesktop.DBus');
    }
  });

  test('long arguments and long answers', () => {
    using bus = DBusConnection.open(SOCKET, 10_000);
    const long = `org.${'x'.repeat(240)}.y`;
    assert.is(bus.hasOwner(long), false);
    const rule = `type='signal',interface='org.a.b',arg0='${'ü'.repeat(400)}'`;
    assert.equal(
      bus.call({
        destination: 'org.freedesktop.DBus',
        path: '/',
        interface: 'org.freedesktop.DBus',
        member: 'AddMatch',
        signature: 's',
        arguments: [rule],
      }),
      [],
    );
  });
} else {
  test.skip('the real bus', missingBus);
}

test.run();
