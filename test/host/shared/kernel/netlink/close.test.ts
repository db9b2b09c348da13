import { spawnSync } from 'node:child_process';
import { openSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { waitUntil } from '../../../../../shared/kernel/deadline.ts';
import { NetlinkSocket, closeLater } from '../../../../../shared/kernel/netlink/socket.ts';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import { addChain, addTable, deleteTable } from '../../../../../shared/packetfilter/nftables/messages.ts';
import type { NftTable } from '../../../../../shared/packetfilter/nftables/model.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('netlink socket: close without waiting');
const MODULE = resolve(import.meta.dirname, '../../../../../shared/kernel/netlink/socket.ts');

const descriptors = (): string[] =>
  readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return '';
    }
  });
const sockets = (): number => readFileSync('/proc/self/net/netlink', 'utf8').split('\n').length;

test('descriptor and ring are closed at once, the socket soon after', () => {
  const before = { descriptors: descriptors().length, sockets: sockets() };
  for (let round = 0; round < 20; round++) closeLater(NetlinkSocket.open(12).fd);
  assert.is(descriptors().length, before.descriptors);
  assert.ok(
    waitUntil(5_000, () => sockets() === before.sockets),
    `${sockets()} sockets, ${before.sockets} before`,
  );
});

test('any descriptor can be closed', () => {
  const before = descriptors().length;
  closeLater(openSync('/dev/null', 'r'));
  assert.is(descriptors().length, before);
});

test('without io_uring it is an ordinary close', () => {
  const script = `
    import { openSync, closeSync } from 'node:fs';
    import { closeLater } from ${JSON.stringify(MODULE)};
    const open = [];
    try { for (;;) open.push(openSync('/dev/null', 'r')); } catch (refused) { if (refused.code !== 'EMFILE') throw refused; }
    const [one, ...others] = open;
    closeLater(one);
    for (const fd of others) closeSync(fd);
    try { closeSync(one); } catch (gone) { console.log(gone.code); }
  `;
  const args = [
    '--nofile=64',
    process.execPath,
    '--no-warnings',
    '--experimental-ffi',
    '--input-type=module',
    '-e',
    script,
  ];
  const run = spawnSync('prlimit', args, { encoding: 'utf8' });
  assert.is(run.stdout, 'EBADF\n', run.stderr);
});

test('a connection is closed that way, and its changes stay', () => {
  const table: NftTable = { family: 'ip', name: 'gone' };
  const before = sockets();
  for (let round = 0; round < 5; round++) {
    using connection = NftConnection.open();
    connection.commit([addTable(table), addChain({ table, name: 'c' })]);
    connection.commit([deleteTable(table)]);
  }
  assert.ok(
    waitUntil(5_000, () => sockets() === before),
    `${sockets()} sockets, ${before} before`,
  );
  using connection = NftConnection.open();
  assert.equal(connection.dump('tables', 1, 'ip', []), []);
});

test('a read after a deletion does not wait for the grace period', () => {
  const table: NftTable = { family: 'ip', name: 'gone' };
  const waits: number[] = [];
  for (let round = 0; round < 5; round++) {
    using deleting = NftConnection.open();
    deleting.commit([addTable(table), addChain({ table, name: 'c' })]);
    deleting.commit([deleteTable(table)]);
    const looking = NftConnection.open();
    looking.generation();
    const began = process.hrtime.bigint();
    looking.close();
    waits.push(Number(process.hrtime.bigint() - began) / 1e6);
  }
  // Closed plainly, it takes 10 to 30 ms on Linux since 6.10. The quickest counts: a busy machine takes its own time.
  assert.ok(Math.min(...waits) < 5, `${waits.join(', ')} ms`);
});

test.run();
