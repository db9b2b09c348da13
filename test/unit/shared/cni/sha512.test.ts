import { createHash, randomBytes } from 'node:crypto';
import * as assert from 'uvu/assert';
import { sha512 } from '../../../../shared/cni/sha512.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('sha512');

test('the examples of the standard', () => {
  assert.is(
    sha512('abc').toString('hex'),
    'ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f',
  );
  assert.match(sha512('').toString('hex'), /^cf83e1357eefb8bd/);
});

test('the same as OpenSSL, for every length around the ends of three blocks', () => {
  for (let length = 0; length < 400; length += 1) {
    const text = randomBytes(length).toString('latin1').slice(0, length);
    assert.is(
      sha512(text).toString('hex'),
      createHash('sha512').update(text).digest('hex'),
      `${length} characters`,
    );
  }
});

test('one call leaves nothing behind for the next', () => {
  const first = sha512('nomad');
  sha512('another'.repeat(100));
  assert.equal(sha512('nomad'), first);
});

test.run();
