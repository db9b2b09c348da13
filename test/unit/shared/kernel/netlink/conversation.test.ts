import * as assert from 'uvu/assert';
import {
  dump,
  DUMP_ATTEMPTS,
  exchange,
  type Transport,
} from '../../../../../shared/kernel/netlink/conversation.ts';
import type { NetlinkRequest, ReceivedMessage } from '../../../../../shared/kernel/netlink/message.ts';
import { suite } from '../../../../support/suite.ts';
import { cniError, kernelError } from '../../../../support/kernel.ts';

const test = suite('netlink conversation');

const ERROR = 2;
const DONE = 3;
const MULTI = 2;
const DUMP_INTR = 0x10;

type Recorded = Omit<ReceivedMessage, 'sequence'> & { readonly to: number };

/** Plays back datagrams; `to` is the request, counted from 0 within each send, that a message answers. */
class Recording implements Transport {
  readonly sent: (readonly NetlinkRequest[])[] = [];
  readonly #datagrams: Recorded[][];
  #next = 100;

  constructor(...datagrams: Recorded[][]) {
    this.#datagrams = datagrams;
  }

  send(requests: readonly NetlinkRequest[]): number {
    this.sent.push(requests);
    const first = this.#next;
    this.#next += requests.length;
    return first;
  }

  receive(first: number): ReceivedMessage[] {
    const datagram = this.#datagrams.shift();
    if (datagram === undefined)
      throw new Error('the conversation waits although the kernel has said everything');
    return datagram.map(({ to, ...message }) => ({ ...message, sequence: first + to }));
  }

  get left(): number {
    return this.#datagrams.length;
  }
}

const request = (what: string): NetlinkRequest => ({ what, type: 16, flags: 0, body: Buffer.alloc(0) });
const verdict = (to: number, errno: number): Recorded => {
  const body = Buffer.alloc(20);
  body.writeInt32LE(-errno);
  return { to, type: ERROR, flags: 0, body };
};
const answer = (to: number, value: number, flags = 0): Recorded => ({
  to,
  type: 16,
  flags,
  body: Buffer.of(value),
});
const done = (to: number, errno = 0, flags = MULTI): Recorded => {
  const body = Buffer.alloc(4);
  body.writeInt32LE(-errno);
  return { to, type: DONE, flags, body };
};
const values = (messages: readonly { body: Buffer }[]): (number | undefined)[] =>
  messages.map(({ body }) => body[0]);

test('each request gets its own answers and result, in any datagrams', () => {
  const kernel = new Recording(
    [verdict(0, 0), answer(1, 7)],
    [answer(1, 8), verdict(2, 17)],
    [verdict(1, 0)],
  );
  const outcomes = exchange(kernel, [request('a'), request('b'), request('c')]);
  assert.equal(
    outcomes.map(({ error }) => error?.code),
    [undefined, undefined, 'EEXIST'],
  );
  assert.equal(
    outcomes.map(({ messages }) => values(messages)),
    [[], [7, 8], []],
  );
  assert.is(outcomes[2]?.error?.syscall, 'c');
  assert.is(kernel.sent.length, 1);
});

test('an answer stays although the socket reuses its buffer', () => {
  const shared = Buffer.of(1);
  const kernel = new Recording([{ to: 0, type: 16, flags: 0, body: shared }], [verdict(0, 0)]);
  const [outcome] = exchange(kernel, [request('a')]);
  shared[0] = 2;
  assert.equal(values(outcome?.messages ?? []), [1]);
});

test('a silent request is not waited for; if refused, all unanswered ones are refused', () => {
  const begin = { ...request('begin'), silent: true as const };
  assert.equal(
    exchange(new Recording([verdict(1, 0)]), [begin, request('a')]).map(({ error }) => error),
    [undefined, undefined],
  );
  const outcomes = exchange(new Recording([verdict(1, 0), verdict(0, 85)]), [
    begin,
    request('a'),
    request('b'),
  ]);
  assert.equal(
    outcomes.map(({ error }) => error?.code),
    ['ERESTART', undefined, 'ERESTART'],
  );
  assert.is(outcomes[2]?.error?.syscall, 'begin');
});

test('a request with an answer needs no acknowledgement', () => {
  const question = (what: string): NetlinkRequest => ({ ...request(what), answered: true });
  const kernel = new Recording([answer(0, 7)], [verdict(1, 2)], [answer(2, 9)]);
  const outcomes = exchange(kernel, [question('a'), question('b'), question('c')]);
  assert.equal(
    outcomes.map(({ messages, error }) => error?.code ?? values(messages)),
    [[7], 'ENOENT', [9]],
  );
  assert.is(kernel.left, 0);
});

test('without requests there is no wait', () => {
  assert.equal(exchange(new Recording(), []), []);
});

test('a dump ends with DONE, over several datagrams; its request has NLM_F_DUMP and no ACK', () => {
  const kernel = new Recording([answer(0, 1, MULTI), answer(0, 2, MULTI)], [answer(0, 3, MULTI)], [done(0)]);
  assert.equal(values(dump(kernel, request('list'))), [1, 2, 3]);
  assert.is(kernel.sent[0]?.[0]?.flags, 0x300);
  assert.is(kernel.sent[0]?.[0]?.silent, true);
});

test('an interrupted dump is repeated, whichever message has the flag', () => {
  for (const flagged of [0, 1, 2]) {
    const flag = (index: number): number => (index === flagged ? MULTI | DUMP_INTR : MULTI);
    const kernel = new Recording(
      [answer(0, 1, flag(0)), answer(0, 1, flag(1)), done(0, 0, flag(2))],
      [answer(0, 5, MULTI), done(0)],
    );
    assert.equal(values(dump(kernel, request('list'))), [5]);
    assert.is(kernel.sent.length, 2);
  }
});

test('an interrupted dump is read to its end before it is repeated', () => {
  const kernel = new Recording(
    [answer(0, 1, MULTI | DUMP_INTR)],
    [answer(0, 2, MULTI)],
    [done(0)],
    [answer(0, 3, MULTI), done(0)],
  );
  assert.equal(values(dump(kernel, request('list'))), [3]);
  assert.is(kernel.left, 0);
});

test('a list that changes during every attempt is error 11', () => {
  const datagrams = Array.from({ length: DUMP_ATTEMPTS + 5 }, () => [answer(0, 1, DUMP_INTR), done(0)]);
  const kernel = new Recording(...datagrams);
  const error = cniError(11, () => dump(kernel, request('RTM_GETLINK (list)')));
  assert.match(error.message, 'RTM_GETLINK (list): the list changed');
  assert.is(kernel.sent.length, DUMP_ATTEMPTS);
});

test('a dump that ends with an error is no complete list', () => {
  kernelError('ENOMEM', () => dump(new Recording([answer(0, 1, MULTI), done(0, 12)]), request('list')));
  kernelError('EOPNOTSUPP', () => dump(new Recording([verdict(0, 95)]), request('list')));
  // Even when it was interrupted as well: the error would come again.
  kernelError('ENOMEM', () => dump(new Recording([answer(0, 1, DUMP_INTR), done(0, 12)]), request('list')));
});

test.run();
