import * as assert from 'uvu/assert';
import { randomBytes } from '../../../../shared/kernel/random.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('kernel: random bytes');

test('as many as asked for, and others each time', () => {
  const seen = new Set(Array.from({ length: 100 }, () => randomBytes(6).toString('hex')));
  assert.is(seen.size, 100);
  assert.ok([...seen].every((text) => text.length === 12));
  assert.is(randomBytes(0).length, 0);
});

test('every byte takes part', () => {
  const sums = new Uint8Array(6);
  for (let round = 0; round < 100; round += 1)
    randomBytes(6).forEach((byte, index) => (sums[index] = (sums[index] ?? 0) | byte));
  assert.equal([...sums], [255, 255, 255, 255, 255, 255]);
});

test.run();
