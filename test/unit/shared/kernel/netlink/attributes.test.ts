import { formatAttribute, parseAttributes } from 'netlink/dist/structs.js';
import * as assert from 'uvu/assert';
import {
  align,
  AttributeStream,
  Attributes,
  encode,
  listAttributes,
  NESTED,
  NETWORK_ORDER,
} from '../../../../../shared/kernel/netlink/attributes.ts';
import { suite } from '../../../../support/suite.ts';
import { kernelError } from '../../../../support/kernel.ts';
import { randomBelow } from '../../../../support/random.ts';

const test = suite('netlink attributes');

interface Sample {
  readonly type: number;
  readonly payload: Buffer;
}

function randomSamples(random: (limit: number) => number): Sample[] {
  return Array.from({ length: random(12) }, () => ({
    type: 1 + random(0x3fff),
    payload: Buffer.from(Array.from({ length: random(70) }, () => random(256))),
  }));
}

/** The slow path: bytes put together one attribute at a time from the description in linux/netlink.h. */
function slowEncode(samples: readonly (Sample & { flags?: number })[]): Buffer {
  return Buffer.concat(
    samples.flatMap(({ type, payload, flags = 0 }) => {
      const header = Buffer.from(Uint16Array.of(payload.length + 4, type | flags).buffer);
      return [header, payload, Buffer.alloc(align(payload.length) - payload.length)];
    }),
  );
}

test('random attributes: encoded as by a reference encoder, decoded as by it and the package', () => {
  const random = randomBelow(1);
  for (let round = 0; round < 2000; round++) {
    const samples = randomSamples(random);
    const bytes = encode((out) => samples.forEach(({ type, payload }) => out.push(type, payload)));
    assert.ok(bytes.equals(slowEncode(samples)));
    assert.equal(listAttributes(bytes), samples);

    const byPackage: Sample[] = [];
    parseAttributes(bytes, ({ type, data }) => byPackage.push({ type, payload: data }));
    assert.equal(byPackage, samples);

    const fast = new Attributes(bytes);
    const last = new Map(samples.map(({ type, payload }) => [type, payload]));
    assert.equal(fast.types().sort(), [...last.keys()].sort());
    for (const [type, payload] of last) assert.ok(fast.get(type)?.equals(payload));
  }
});

test('random nesting is decoded level by level', () => {
  const random = randomBelow(2);
  for (let round = 0; round < 500; round++) {
    const inner = randomSamples(random);
    const outer = randomSamples(random).filter(({ type }) => type !== 7);
    const bytes = encode((out) => {
      outer.forEach(({ type, payload }) => out.push(type, payload));
      out.push(7 | NESTED, (level) => inner.forEach(({ type, payload }) => level.push(type, payload)));
    });
    const payload = new Attributes(bytes).get(7);
    assert.ok(payload !== undefined);
    assert.equal(listAttributes(payload ?? Buffer.alloc(0)), inner);
  }
});

test('random bytes are decoded or refused, never read beyond their end', () => {
  const random = randomBelow(3);
  let refused = 0;
  for (let round = 0; round < 3000; round++) {
    const bytes = Buffer.from(Array.from({ length: random(60) }, () => (random(3) === 0 ? random(12) : 0)));
    try {
      const attributes = listAttributes(bytes);
      const used = attributes.reduce((total, { payload }) => total + align(payload.length + 4), 0);
      assert.ok(used <= align(bytes.length));
      assert.ok(bytes.length - used < 4, 'nothing but a rest too short for a header is left');
    } catch (thrown) {
      refused += 1;
      assert.is((thrown as { code?: unknown }).code, 'EBADMSG');
      kernelError('EBADMSG', () => new Attributes(bytes));
    }
  }
  assert.ok(refused > 100);
});

test('the flags of a type are sent, which the package alone masks', () => {
  const nested = encode((out) => out.push(12 | NESTED, (level) => level.push(4, Buffer.of(1))));
  assert.is(nested.toString('hex'), '0c000c80' + '0500040001000000');
  const order = encode((out) => out.push(3 | NETWORK_ORDER, Buffer.of(0x1f, 0x90)));
  assert.is(order.toString('hex'), '060003401f900000');
  assert.ok(
    nested.equals(Buffer.concat(formatAttribute({ nested: true, type: 12, data: nested.subarray(4) }))),
  );
  assert.is(encode((out) => out.push(12, (level) => level.push(4, Buffer.of(1)))).readUInt16LE(2), 12);
});

test('flags are set after unaligned attributes, too', () => {
  for (let length = 0; length < 9; length++) {
    const bytes = encode((out) => {
      out.push(1, Buffer.alloc(length, 0xff));
      out.push(2 | NESTED, (level) => level.push(3, Buffer.of(9)));
    });
    assert.ok(
      bytes.equals(
        slowEncode([
          { type: 1, payload: Buffer.alloc(length, 0xff) },
          {
            type: 2,
            flags: NESTED,
            payload: slowEncode([{ type: 3, payload: Buffer.of(9) }]),
          },
        ]),
      ),
    );
  }
});

test('a stream without attributes is empty, and a fixed header comes first', () => {
  assert.is(encode(() => undefined).length, 0);
  const stream = new AttributeStream();
  stream.emit(Buffer.of(1, 2, 3, 4));
  stream.push(5, Buffer.of(6));
  assert.is(stream.bytes().toString('hex'), '01020304' + '0500050006000000');
});

test('of several attributes of one type the last one counts, a list has them all', () => {
  const bytes = encode((out) => {
    out.push(1, Buffer.of(1));
    out.push(1, Buffer.of(2));
  });
  assert.is(new Attributes(bytes).u8(1), 2);
  assert.equal(
    listAttributes(bytes).map(({ payload }) => payload[0]),
    [1, 2],
  );
});

test('numbers and strings', () => {
  const bytes = encode((out) => {
    out.push(1, Buffer.of(0xfe));
    out.push(2, Buffer.of(0x1f, 0x90));
    out.push(3, Buffer.of(0xff, 0xff, 0xff, 0xff));
    out.push(4, Buffer.from('eth0\0'));
    out.push(5, Buffer.from('veth'));
    out.push(6, Buffer.alloc(0));
  });
  const attributes = new Attributes(bytes);
  assert.is(attributes.u8(1), 0xfe);
  assert.is(attributes.u16(2), 0x901f);
  assert.is(attributes.u16be(2), 0x1f90);
  assert.is(attributes.u32(3), 0xffffffff);
  assert.is(attributes.i32(3), -1);
  assert.is(attributes.u32be(3), 0xffffffff);
  assert.is(attributes.text(4), 'eth0');
  assert.is(attributes.text(5), 'veth');
  assert.is(attributes.text(6), '');
  assert.is(attributes.u32(99), undefined);
  assert.is(attributes.text(99), undefined);
  assert.is(attributes.nested(99), undefined);
});

test('a number that is too short is refused, a longer one is read from its beginning', () => {
  const bytes = encode((out) => {
    out.push(1, Buffer.of(1, 2));
    out.push(2, Buffer.of(1, 0, 0, 0, 9, 9));
  });
  const attributes = new Attributes(bytes);
  const error = kernelError('EBADMSG', () => attributes.u32(1));
  assert.match(error.message, 'attribute 1 has 2 bytes, expected 4');
  assert.is(attributes.u32(2), 1);
});

test('invalid lengths are refused with their offset', () => {
  for (const hex of ['03000100', '0000ffff', 'ff000100', '08000100aabb']) {
    const error = kernelError('EBADMSG', () => new Attributes(Buffer.from(hex, 'hex')));
    assert.match(error.message, 'attribute at 0 claims');
    kernelError('EBADMSG', () => listAttributes(Buffer.from(hex, 'hex')));
  }
});

test.run();
