import { formatMessage, parseMessages } from 'netlink/dist/structs.js';
import * as assert from 'uvu/assert';
import {
  decodeDone,
  decodeError,
  decodeMessages,
  encodeRequests,
  type NetlinkRequest,
} from '../../../../../shared/kernel/netlink/message.ts';
import { suite } from '../../../../support/suite.ts';
import { kernelError } from '../../../../support/kernel.ts';
import { randomBelow } from '../../../../support/random.ts';

const test = suite('netlink messages');

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(' ', ''), 'hex');

test('requests are concatenated, padded, with increasing sequence numbers', () => {
  const requests: NetlinkRequest[] = [
    { what: 'one', type: 16, flags: 0x600, body: Buffer.of(1, 2, 3) },
    { what: 'two', type: 0x10, flags: 0, body: Buffer.alloc(0), silent: true },
    { what: 'three', type: 18, flags: 0, body: Buffer.of(4, 5, 6, 7) },
    { what: 'four', type: 18, flags: 0, body: Buffer.alloc(0), answered: true },
  ];
  const expected = hex(
    '13000000 1000 0506 0a000000 00000000 01020300' +
      '10000000 1000 0100 0b000000 00000000' +
      '14000000 1200 0500 0c000000 00000000 04050607' +
      '10000000 1200 0100 0d000000 00000000',
  );
  assert.is(encodeRequests(requests, 10).toString('hex'), expected.toString('hex'));
});

test('sequence numbers wrap around instead of failing', () => {
  const requests = [1, 2].map((n) => ({ what: `${n}`, type: 16, flags: 0, body: Buffer.alloc(0) }));
  assert.equal(
    decodeMessages(encodeRequests(requests, 0xffffffff)).map(({ sequence }) => sequence),
    [0xffffffff, 0],
  );
});

test('random datagrams are decoded as by the package', () => {
  const random = randomBelow(4);
  for (let round = 0; round < 500; round++) {
    const parts: Uint8Array[] = [];
    for (let count = random(6); count > 0; count--) {
      const data = Buffer.alloc(random(40), random(256));
      parts.push(
        ...formatMessage({
          type: random(65536),
          flags: random(65536),
          seq: random(2 ** 32),
          port: 0,
          data,
        }),
      );
      parts.push(Buffer.alloc(-data.length & 3));
    }
    const datagram = Buffer.concat(parts);
    assert.equal(
      decodeMessages(datagram).map(({ type, flags, sequence, body }) => ({
        type,
        flags,
        seq: sequence,
        port: 0,
        data: body,
      })),
      parseMessages(datagram),
    );
  }
});

test('a message that claims more than there is, or less than its header, is refused', () => {
  for (const length of ['11000000', '0f000000', '00000000', 'ffffffff']) {
    const error = kernelError('EBADMSG', () => decodeMessages(hex(`${length} 0200 0000 01000000 01000000`)));
    assert.match(error.message, 'message at 0 claims');
  }
});

/** Recorded: RTM_NEWROUTE with a gateway that no address reaches; NLM_F_CAPPED | NLM_F_ACK_TLVS. */
const UNREACHABLE_GATEWAY = hex(
  '9bffffff 3c000000 18000506 bcab036b 00000000' +
    '1f000100 4e657874686f702068617320696e76616c69642067617465776179 0000',
);

test('an error carries errno and the text of the kernel', () => {
  const error = decodeError('RTM_NEWROUTE', { type: 2, flags: 0x300, body: UNREACHABLE_GATEWAY });
  assert.is(error?.code, 'ENETUNREACH');
  assert.is(error?.detail, 'Nexthop has invalid gateway');
  assert.is(
    error?.message,
    'RTM_NEWROUTE: ENETUNREACH: network is unreachable (Nexthop has invalid gateway)',
  );
});

test('the text is found also after a request that the kernel echoes', () => {
  const request = hex('1d000000 18000506 01000000 00000000 0102030405060708090a0b0c0d 000000');
  const body = Buffer.concat([hex('eaffffff'), request, hex('08000200 14000000 06000100 7900 0000')]);
  const error = decodeError('x', { type: 2, flags: 0x200, body });
  assert.is(error?.code, 'EINVAL');
  assert.is(error?.detail, 'y');
  assert.is(error?.offset, 20);
});

test('a missing attribute is named when there is no text', () => {
  const body = hex('eaffffff 10000000 10000500 01000000 00000000 08000500 03000000');
  assert.is(decodeError('x', { type: 2, flags: 0x300, body })?.detail, 'attribute 3 is missing');
});

test('an acknowledgement is no error, also with a warning attached', () => {
  const body = hex('00000000 10000000 10000500 01000000 00000000 06000100 7900 0000');
  assert.is(decodeError('x', { type: 2, flags: 0x300, body }), undefined);
  assert.is(decodeError('x', { type: 2, flags: 0x100, body: body.subarray(0, 20) }), undefined);
});

test('a broken explanation does not hide the error', () => {
  const body = hex('efffffff 10000000 10000500 01000000 00000000 ff000100 7900');
  const error = decodeError('x', { type: 2, flags: 0x300, body });
  assert.is(error?.code, 'EEXIST');
  assert.is(error?.detail, undefined);
});

test('an error without room for errno is refused', () => {
  kernelError('EBADMSG', () => decodeError('x', { type: 2, flags: 0, body: Buffer.of(1, 2) }));
});

test('the end of a dump can carry an error, with its text', () => {
  assert.is(decodeDone('x', { type: 3, flags: 2, body: hex('00000000') }), undefined);
  assert.is(decodeDone('x', { type: 3, flags: 2, body: Buffer.alloc(0) }), undefined);
  const error = decodeDone('x', { type: 3, flags: 0x202, body: hex('edffffff 06000100 7900 0000') });
  assert.is(error?.code, 'ENODEV');
  assert.is(error?.detail, 'y');
  assert.is(decodeDone('x', { type: 3, flags: 2, body: hex('f0ffffff') })?.code, 'EBUSY');
});

test.run();
