import * as assert from 'uvu/assert';
import {
  attributeOf,
  attributesOf,
  encodeTree,
  textOf,
  type AttributeNode,
} from '../../../../../shared/packetfilter/nftables/nlattr.ts';
import { randomBelow } from '../../../../support/random.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('nf_tables: trees of attributes');

test('lengths leave the padding out, which is zero; what holds attributes says so', () => {
  const tree: AttributeNode[] = [
    [1, 'filter'],
    [2, Uint8Array.of(1, 2, 3)],
    [
      3,
      [
        [4, Uint8Array.of(5)],
        [5, []],
      ],
    ],
  ];
  assert.is(
    encodeTree(tree, Uint8Array.of(9, 9, 9, 9)).toString('hex'),
    '09090909' +
      '0b000100' +
      '66696c7465720000' +
      '07000200' +
      '01020300' +
      '10000380' +
      '05000400' +
      '05000000' +
      '04000580',
  );
});

test('a later, shorter tree holds nothing of an earlier one', () => {
  encodeTree([[1, Buffer.alloc(5000, 0xff)]]);
  assert.is(encodeTree([[1, Uint8Array.of(1)]]).toString('hex'), '0500010001000000');
});

test('trees of every size come back as they were, and from one call to the next they stay', () => {
  const trees = Array.from({ length: 400 }, (_, seed) => randomTree(seed));
  const encoded = trees.map((tree) => encodeTree(tree));
  assert.equal(encoded.map(plain), trees.map(shape));
});

test('text is UTF-8 and ends with NUL', () => {
  const text = 'Zürich – 日本 🎉'.repeat(300);
  const [[, value] = [0, Buffer.alloc(0)]] = attributesOf(encodeTree([[7, text]]));
  assert.is(textOf(value), text);
  assert.is(value.length, Buffer.byteLength(text) + 1);
});

test('numbers are big-endian, and may be negative', () => {
  const tree: AttributeNode[] = [
    [1, 0x0102030405060708n],
    [2, 0xffffff00],
    [3, -3],
  ];
  const values = attributesOf(encodeTree(tree)).map(([, value]) => value.toString('hex'));
  assert.equal(values, ['0102030405060708', 'ffffff00', 'fffffffd']);
});

test('the first of a type is found; malformed lengths end the walk', () => {
  const bytes = encodeTree([
    [1, Uint8Array.of(1)],
    [2, Uint8Array.of(2)],
    [2, Uint8Array.of(3)],
  ]);
  assert.equal([...(attributeOf(bytes, 2) ?? [])], [2]);
  assert.is(attributeOf(bytes, 3), undefined);
  for (const length of [0, 3, 200]) {
    const broken = Buffer.from(bytes);
    broken.writeUInt16LE(length, 8);
    assert.is(attributesOf(broken).length, 1, `${length}`);
    assert.is(attributeOf(broken, 2), undefined);
  }
  assert.equal(attributesOf(bytes.subarray(0, 3)), []);
});

/** Nested up to four deep, up to some 20 kB; the same for the same seed. */
function randomTree(seed: number, depth = 0): AttributeNode[] {
  const next = randomBelow(seed * 2654435761 + depth);
  return Array.from({ length: 1 + next(6) }, (_, index): AttributeNode => {
    const kind = next(depth < 4 ? 5 : 4);
    if (kind === 0) return [index, 'x'.repeat(next(60))];
    if (kind === 1) return [index, Buffer.alloc(next(seed % 50 === 0 ? 4000 : 40), index)];
    if (kind === 2) return [index, seed];
    if (kind === 3) return [index, BigInt(seed) << 32n];
    return [index, randomTree(seed + index + 1, depth + 1)];
  });
}

/** What was read, down to the leaves: hexadecimal, or a list. */
type Shape = [number, string | Shape[]][];

function plain(bytes: Buffer): Shape {
  const nested = new Map<number, boolean>();
  for (let at = 0; at < bytes.length; at += (bytes.readUInt16LE(at) + 3) & ~3)
    nested.set(at, (bytes.readUInt16LE(at + 2) & 0x8000) !== 0);
  const flags = [...nested.values()];
  return attributesOf(bytes).map(([type, value], index) => [
    type,
    flags[index] === true ? plain(value) : value.toString('hex'),
  ]) as Shape;
}

function shape(tree: readonly AttributeNode[]): Shape {
  return tree.map(([type, value]) => {
    if (typeof value === 'string') return [type, Buffer.from(`${value}\0`).toString('hex')];
    if (typeof value === 'number') return [type, value.toString(16).padStart(8, '0')];
    if (typeof value === 'bigint') return [type, value.toString(16).padStart(16, '0')];
    return [type, value instanceof Uint8Array ? Buffer.from(value).toString('hex') : shape(value)];
  }) as Shape;
}

test.run();
