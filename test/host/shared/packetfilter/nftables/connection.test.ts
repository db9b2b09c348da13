import { execFileSync } from 'node:child_process';
import { readdirSync, readlinkSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { isErrno } from '../../../../../shared/kernel/errno.ts';
import type { Listing } from '../../../../../shared/kernel/netlink/conversation.ts';
import { decodeMessages } from '../../../../../shared/kernel/netlink/message.ts';
import { closePending, NetlinkSocket } from '../../../../../shared/kernel/netlink/socket.ts';
import { inScratchNamespace } from '../../../../../shared/kernel/namespace.ts';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import {
  addChain,
  addTable,
  deleteTable,
  Message,
} from '../../../../../shared/packetfilter/nftables/messages.ts';
import type { NftChain, NftTable } from '../../../../../shared/packetfilter/nftables/model.ts';
import { NftReader } from '../../../../../shared/packetfilter/nftables/reader.ts';
import { suite } from '../../../../support/suite.ts';
import { nftScript } from '../../../../support/variants.ts';

const test = suite('connection to nf_tables');

const table: NftTable = { family: 'ip', name: 'sample' };
const chain: NftChain = { table, name: 'own' };
const nft = (...args: string[]): string => execFileSync('nft', args, { encoding: 'utf8' });

/** How many datagrams were sent to the kernel while `work` ran. */
function sent(work: () => void): number {
  const { send } = NetlinkSocket.prototype;
  let count = 0;
  NetlinkSocket.prototype.send = function (requests) {
    count += 1;
    return send.call(this, requests);
  };
  try {
    work();
  } finally {
    NetlinkSocket.prototype.send = send;
  }
  return count;
}

test('in a namespace without a commit everything is absent, and nothing is requested', () => {
  inScratchNamespace(() => {
    using connection = NftConnection.open();
    const view = new NftReader(connection);
    assert.is(connection.generation(), 1);
    const look = (): void => {
      assert.not(view.hasTable(table));
      assert.not(view.hasAnyTable([table]));
      assert.not(view.hasChain(chain));
      assert.equal(view.rules(chain), []);
      assert.equal(view.tables(), []);
    };
    assert.is(sent(look), 0);
    assert.is(nft('list', 'ruleset'), '');
    // Reading is no commit.
    assert.is(connection.generation(), 1);
  });
});

test('without the generation the kernel is asked, in a new namespace too', () => {
  inScratchNamespace(() => {
    using connection = NftConnection.open();
    const view = new NftReader(connection);
    assert.is(
      sent(() => assert.not(view.hasTable(table))),
      1,
    );
  });
});

test('a new table is found after the next generation request, also of another program', () => {
  inScratchNamespace(() => {
    using connection = NftConnection.open();
    const view = new NftReader(connection);
    connection.commit([addTable(table), addChain(chain)], connection.generation());
    assert.ok(view.hasTable(table), 'own commit');
    assert.is(connection.generation(), 2);
    assert.ok(view.hasChain(chain));
    nft('add', 'table', 'ip', 'theirs');
    assert.is(connection.generation(), 3);
    assert.ok(view.hasTable({ family: 'ip', name: 'theirs' }));
    // The number never goes back, so an emptied namespace is asked like any other.
    nft('flush', 'ruleset');
    assert.ok(connection.generation() > 3);
    assert.is(
      sent(() => assert.not(view.hasTable(table))),
      1,
    );
  });
});

test('who commits in between is noticed by the commit, and then seen', () => {
  inScratchNamespace(() => {
    using connection = NftConnection.open();
    const view = new NftReader(connection);
    const generation = connection.generation();
    nft('add', 'table', 'ip', 'sample');
    assert.not(view.hasTable(table), 'as of the generation');
    assert.throws(
      () => connection.commit([addTable(table)], generation),
      (thrown: unknown) => isErrno(thrown, 'ERESTART'),
    );
    assert.is(connection.generation(), 2);
    assert.ok(view.hasTable(table));
  });
});

test('several objects are asked for in one write, and answered in their order', () => {
  inScratchNamespace(() => {
    nft('add', 'table', 'ip', 'sample');
    using connection = NftConnection.open();
    const view = new NftReader(connection);
    const missing: NftTable = { family: 'ip6', name: 'sample' };
    const datagrams = sent(() => {
      assert.ok(view.hasAnyTable([missing, table]));
      assert.not(view.hasAnyTable([missing]));
      assert.not(view.hasAnyTable([]));
    });
    assert.is(datagrams, 2);
    connection.commit([deleteTable(table)]);
    assert.not(view.hasAnyTable([missing, table]));
  });
});

test('of a refused transaction the first refused request is named, and the conversation goes on', () => {
  inScratchNamespace(() => {
    using connection = NftConnection.open();
    const inNothing = (name: string): NftChain => ({ table: { family: 'ip', name: 'nothing' }, name });
    const refused = (...requests: Parameters<typeof connection.commit>[0]): void => {
      assert.throws(
        () => connection.commit([addTable(table), ...requests]),
        (thrown: unknown) => isErrno(thrown, 'ENOENT') && /add chain ip nothing first/.test(String(thrown)),
      );
      assert.is(connection.generation(), 1);
    };
    refused(addChain(inNothing('first')), addChain(chain));
    refused(addChain(chain), addChain(inNothing('first')));
    refused(addChain(inNothing('first')), addChain(inNothing('second')), addChain(chain));
    connection.commit([addTable(table), addChain(chain)]);
    assert.ok(new NftReader(connection).hasChain(chain));
  });
});

/** A chain whose rules fill a dozen datagrams of the kernel. */
function fillChain(): void {
  const rules = Array.from(
    { length: 3000 },
    (_, at) => `add rule ip sample own ip saddr 10.0.0.1 counter # ${at}`,
  );
  const lines = ['add table ip sample', 'add chain ip sample own', 'add chain ip sample other', ...rules];
  nftScript(lines);
}

function listOwn(connection: NftConnection): Listing {
  const listing = connection.list('list rules', Message.getRule, 'ip', [
    [1, 'sample'],
    [2, 'own'],
  ]);
  if (listing === undefined) throw new Error('the namespace has tables');
  return listing;
}

function countRules(listing: Listing): number {
  let count = 0;
  for (let at = 0; ; at++) {
    const datagram = listing.datagram(at);
    if (datagram === undefined) return count;
    count += decodeMessages(datagram).length;
  }
}

const openSockets = (): number => {
  closePending();
  return readdirSync('/proc/self/fd').filter((fd) => isSocket(`/proc/self/fd/${fd}`)).length;
};

function isSocket(path: string): boolean {
  try {
    return readlinkSync(path).startsWith('socket:');
  } catch {
    return false;
  }
}

test('an incomplete listing does not block the connection, can be continued, and is closed with it', () => {
  inScratchNamespace(() => {
    fillChain();
    const before = openSockets();
    const connection = NftConnection.open();
    const view = new NftReader(connection);
    const listings = [listOwn(connection), listOwn(connection), listOwn(connection)];
    for (const listing of listings) {
      assert.ok(listing.datagram(0) !== undefined);
      assert.ok(view.hasChain({ table, name: 'other' }));
      assert.equal(view.rules({ table, name: 'other' }), []);
      assert.is(listing.complete, false);
    }
    assert.ok(openSockets() > before + 1, 'each has a socket of its own');
    assert.equal(listings.map(countRules), [3000, 3000, 3000]);
    connection.commit([addChain({ table, name: 'more' })]);
    connection.close();
    assert.is(openSockets(), before);
  });
});

test('the rest of a short listing is read, and so is one that is incomplete when the thread enters another namespace', () => {
  inScratchNamespace(() => {
    fillChain();
    const before = openSockets();
    using connection = NftConnection.open();
    const listing = listOwn(connection);
    assert.ok(listing.datagram(0) !== undefined);
    inScratchNamespace(() => assert.ok(new NftReader(connection).hasChain({ table, name: 'other' })));
    assert.is(listing.complete, true);
    assert.is(countRules(listing), 3000);
    execFileSync('nft', ['flush', 'chain', 'ip', 'sample', 'own']);
    execFileSync('nft', ['add', 'rule', 'ip', 'sample', 'own', 'accept']);
    const short = listOwn(connection);
    assert.ok(short.datagram(0) !== undefined);
    assert.ok(new NftReader(connection).hasChain({ table, name: 'other' }));
    assert.is(short.complete, true);
    assert.is(openSockets(), before + 1);
  });
});

test.run();
