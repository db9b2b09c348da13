import * as assert from 'uvu/assert';
import {
  DUMP_ATTEMPTS,
  type DatagramTransport,
  Listing,
} from '../../../../../shared/kernel/netlink/conversation.ts';

import type { NetlinkRequest } from '../../../../../shared/kernel/netlink/message.ts';
import { suite } from '../../../../support/suite.ts';
import { cniError, kernelError } from '../../../../support/kernel.ts';

const test = suite('netlink listing');

const ERROR = 2;
const DONE = 3;
const ENTRY = 16;
const MULTI = 2;
const INTERRUPTED = 0x10;

function message(type: number, body: Buffer, flags = MULTI): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(16 + body.length, 0);
  header.writeUInt16LE(type, 4);
  header.writeUInt16LE(flags, 6);
  return Buffer.concat([header, body, Buffer.alloc(-body.length & 3)]);
}

const entry = (text: string, flags = MULTI): Buffer => message(ENTRY, Buffer.from(text), flags);
const verdict = (errno: number): Buffer => {
  const body = Buffer.alloc(4);
  body.writeInt32LE(-errno);
  return body;
};
const done = (errno = 0, flags = MULTI): Buffer => message(DONE, verdict(errno), flags);

/** Plays back datagrams, for as many requests as come. */
class Recording implements DatagramTransport {
  readonly sent: NetlinkRequest[] = [];
  readonly #datagrams: Buffer[];

  constructor(...datagrams: Buffer[][]) {
    this.#datagrams = datagrams.map((messages) => Buffer.concat(messages));
  }

  send(requests: readonly NetlinkRequest[]): number {
    this.sent.push(...requests);
    return this.sent.length;
  }

  receiveDatagram(sequence: number): Buffer {
    assert.is(sequence, this.sent.length);
    const datagram = this.#datagrams.shift();
    if (datagram === undefined) throw new Error('the listing waits although the kernel has said everything');
    return Buffer.from(datagram);
  }

  get left(): number {
    return this.#datagrams.length;
  }
}

const request: NetlinkRequest = { what: 'list things', type: 16, flags: 0, body: Buffer.alloc(0) };

function whole(listing: Listing): Buffer[] {
  const found: Buffer[] = [];
  for (let at = 0; ; at++) {
    const datagram = listing.datagram(at);
    if (datagram === undefined) return found;
    found.push(datagram);
  }
}

test('its datagrams are the kernel’s without NLMSG_DONE, at aligned addresses', () => {
  const kernel = new Recording([entry('a'), entry('bcdef')], [entry('g')], [done()]);
  const listing = new Listing(kernel, request);
  assert.equal(whole(listing), [Buffer.concat([entry('a'), entry('bcdef')]), entry('g')]);
  assert.ok(whole(listing).every(({ byteOffset }) => byteOffset % 4 === 0));
  assert.is(listing.complete, true);
  const short = new Listing(new Recording([entry('a'), done()]), request);
  assert.equal(whole(short), [entry('a')]);
  assert.equal(whole(new Listing(new Recording([done()]), request)), []);
});

test('no more is read than is requested', () => {
  const kernel = new Recording([entry('a')], [entry('b')], [entry('c')], [done()]);
  const listing = new Listing(kernel, request);
  assert.equal(listing.datagram(0), entry('a'));
  assert.equal(listing.datagram(0), entry('a'));
  assert.is(kernel.left, 3);
  assert.is(listing.complete, false);
  listing.readOn();
  assert.is(kernel.left, 2);
  listing.readAll();
  listing.readOn();
  assert.equal([kernel.left, listing.complete], [0, true]);
  assert.equal(listing.datagram(2), entry('c'));
  assert.is(listing.datagram(3), undefined);
});

test('a list that changed meanwhile is read again, whichever message says so', () => {
  const interruptions = [
    [[entry('b', MULTI | INTERRUPTED), entry('c')], [entry('d')], [done()]],
    [[entry('b'), entry('c', MULTI | INTERRUPTED)], [done()]],
    [[entry('b')], [done(0, MULTI | INTERRUPTED)]],
  ];
  for (const interrupted of interruptions) {
    const kernel = new Recording([entry('a')], ...interrupted, [entry('x')], [entry('y')], [done()]);
    const listing = new Listing(kernel, request);
    assert.equal(listing.datagram(0), entry('a'));
    const before = listing.attempt;
    listing.readAll();
    assert.not.equal(listing.attempt, before);
    assert.equal(whole(listing), [entry('x'), entry('y')]);
    assert.is(kernel.sent.length, 2);
  }
});

test('a list that changes during every attempt is error 11', () => {
  const attempt = [[entry('a', MULTI | INTERRUPTED)], [done()]];
  const kernel = new Recording(...Array.from({ length: DUMP_ATTEMPTS }, () => attempt).flat());
  const error = cniError(11, () => new Listing(kernel, request).readAll());
  assert.match(error.message, /list things: the list changed during each of 50 attempts/);
});

test('a refusal, an abort and a truncated message are errors', () => {
  const refused = new Recording([message(ERROR, Buffer.concat([verdict(1), Buffer.alloc(16)]), 0)]);
  kernelError('EPERM', () => new Listing(refused, request).readAll());
  const broken = new Recording([entry('a')], [done(105)]);
  kernelError('ENOBUFS', () => new Listing(broken, request).readAll());
  for (const length of [0, 15, 400]) {
    const torn = entry('abc');
    torn.writeUInt32LE(length, 0);
    const kernel = new Recording([torn]);
    kernelError('EBADMSG', () => new Listing(kernel, request).readAll());
  }
});

test.run();
