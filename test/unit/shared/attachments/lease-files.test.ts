import * as assert from 'uvu/assert';
import { formatLease, ownerKey, parseLease, scanStore } from '../../../../shared/attachments/lease-files.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('lease texts');

test("the text is the reference's, byte for byte", () => {
  assert.is(formatLease('cont1', 'eth0'), 'cont1\r\neth0');
});

test('reads what it writes, and what a hand or another release left around it', () => {
  for (const text of ['cont1\r\neth0', 'cont1\r\neth0\n', ' cont1\r\neth0\r\n'])
    assert.equal(
      parseLease(text),
      { kind: 'exact', containerId: 'cont1', ifname: 'eth0' },
      JSON.stringify(text),
    );
  for (const text of ['cont1', 'cont1\n', 'cont1\r\n'])
    assert.equal(parseLease(text), { kind: 'legacy', containerId: 'cont1' }, JSON.stringify(text));
});

test('nothing, blanks and zero bytes are what a crash leaves', () => {
  for (const text of ['', ' ', '\n', '\r\n', '\0', '\0\0\0\0\0\0\0\0', '\0\n'])
    assert.is(parseLease(text).kind, 'empty', JSON.stringify(text));
});

test('what is no owner cannot be released by one', () => {
  const texts = [
    'two words',
    'cont1\neth0',
    '../x',
    '-a',
    'cont1\r\neth0\r\nmore',
    'cont1\r\n eth0',
    '{"json": 1}',
    'cont\0',
    'é',
    'a\r\nb/c',
  ];
  for (const text of texts) {
    assert.is(parseLease(text).kind, 'invalid', JSON.stringify(text));
    assert.is(ownerKey(parseLease(text)), undefined);
  }
});

test('the owner is the trimmed text', () => {
  assert.is(ownerKey(parseLease('cont1\r\neth0\n')), 'cont1\r\neth0');
  assert.is(ownerKey(parseLease('cont1\n')), 'cont1');
});

test('a store that is missing, or whose path leads through a file, is empty', () => {
  for (const store of ['/nowhere/net', '/dev/null/net', '/dev/null'])
    assert.equal(scanStore(store), { leases: [], isFlat: true }, store);
});

test.run();
