import * as assert from 'uvu/assert';
import { waitUntil } from '../../../../../shared/kernel/deadline.ts';
import {
  addAddress,
  addresses,
  deleteAddress,
  type AddressInfo,
} from '../../../../../shared/kernel/rtnetlink/addresses.ts';
import { createVeth, linkByName, setLink } from '../../../../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../../../../shared/kernel/rtnetlink/rtnetlink.ts';
import { suite } from '../../../../support/suite.ts';
import { ip, kernelError, makeNamespace } from '../../../../support/kernel.ts';

const test = suite('rtnetlink addresses');
const own = Rtnetlink.open();
let index = 0;

test.before(() => {
  createVeth(own, { name: 'left', up: true, peer: { name: 'right' } });
  setLink(own, 'right', { up: true });
  index = linkByName(own, 'left')?.index ?? 0;
});

function find(address: string): AddressInfo | undefined {
  return addresses(own, { index }).find((found) => found.address === address);
}

function seenByIp(local: string): Record<string, unknown> | undefined {
  const [link] = ip('addr', 'show', 'dev', 'left');
  return (link?.['addr_info'] as Record<string, unknown>[]).find((address) => address['local'] === local);
}

test('IPv4 with and without broadcast, as ip shows it', () => {
  addAddress(own, { index, address: '10.1.2.3/24' });
  addAddress(own, { index, address: '10.2.2.3/16', broadcast: 'computed' });
  addAddress(own, { index, address: '10.3.2.3/24', broadcast: '10.3.2.254' });
  addAddress(own, { index, address: '10.4.2.3/32', broadcast: 'computed' });
  addAddress(own, { index, address: '10.5.2.2/31', broadcast: 'computed' });
  for (const [address, prefix, broadcast] of [
    ['10.1.2.3', 24, undefined],
    ['10.2.2.3', 16, '10.2.255.255'],
    ['10.3.2.3', 24, '10.3.2.254'],
    ['10.4.2.3', 32, undefined],
    ['10.5.2.2', 31, undefined],
  ] as const) {
    const byIp = seenByIp(address);
    assert.equal([byIp?.['prefixlen'], byIp?.['broadcast'], byIp?.['scope']], [prefix, broadcast, 'global']);
    const ours = find(`${address}/${prefix}`);
    assert.equal([ours?.index, ours?.family, ours?.broadcast, ours?.scope], [index, 'ipv4', broadcast, 0]);
  }
});

test('an address that exists is EEXIST', () => {
  const error = kernelError('EEXIST', () => addAddress(own, { index, address: '10.1.2.3/24' }));
  assert.match(error.message, 'RTM_NEWADDR 10.1.2.3/24: EEXIST');
  kernelError('ENODEV', () => addAddress(own, { index: 4711, address: '10.1.2.3/24' }));
});

test('IPv6 without duplicate address detection is usable at once', () => {
  addAddress(own, { index, address: 'fd00::5/64', noDad: true });
  const found = find('fd00::5/64');
  assert.equal(
    [found?.family, found?.noDad, found?.tentative, found?.dadFailed],
    ['ipv6', true, false, false],
  );
});

test('IPv6 with duplicate address detection is tentative first, then not', () => {
  addAddress(own, { index, address: 'fd00::6/64' });
  assert.equal([find('fd00::6/64')?.tentative, find('fd00::6/64')?.noDad], [true, false]);
  assert.ok(waitUntil(5000, () => find('fd00::6/64')?.tentative === false));
  assert.is(find('fd00::6/64')?.dadFailed, false);
});

test('an IPv6 address that another host has fails duplicate detection', () => {
  using box = Rtnetlink.openIn(makeNamespace('box'));
  createVeth(own, { name: 'here', up: true, peer: { name: 'there' } });
  const here = linkByName(own, 'here')?.index ?? 0;
  const there = linkByName(own, 'there')?.index ?? 0;
  // The same namespace knows its own addresses: the other holder must live in another one.
  setLinkNamespace('there', 'box');
  setLink(box, 'there', { up: true });
  addAddress(box, { index: there, address: 'fd01::1/64', noDad: true });
  addAddress(own, { index: here, address: 'fd01::1/64' });
  const state = (): AddressInfo | undefined =>
    addresses(own, { index: here }).find(({ address }) => address === 'fd01::1/64');
  assert.ok(waitUntil(5000, () => state()?.dadFailed === true));
  assert.is(state()?.tentative, true);
});

function setLinkNamespace(name: string, namespace: string): void {
  ip('link', 'set', name, 'netns', namespace);
}

test('lists by link and by family agree with ip', () => {
  const texts = (found: readonly AddressInfo[]): string[] => found.map(({ address }) => address).sort();
  const byIp = (...args: string[]): string[] =>
    ip(...args)
      .flatMap((link) => (link['addr_info'] as Record<string, unknown>[] | undefined) ?? [])
      .filter((address) => 'local' in address)
      .map((address) => `${String(address['local'])}/${String(address['prefixlen'])}`)
      .sort();
  assert.equal(texts(addresses(own)), byIp('addr', 'show'));
  assert.equal(texts(addresses(own, { index })), byIp('addr', 'show', 'dev', 'left'));
  assert.equal(texts(addresses(own, { family: 'ipv4' })), byIp('-4', 'addr', 'show'));
  assert.equal(texts(addresses(own, { index, family: 'ipv6' })), byIp('-6', 'addr', 'show', 'dev', 'left'));
  assert.equal(addresses(own, { index: 4711 }), []);
});

test('a point-to-point address is the local one, not the peer', () => {
  ip('addr', 'add', '192.0.2.1', 'peer', '192.0.2.2/32', 'dev', 'left');
  assert.ok(find('192.0.2.1/32') !== undefined);
  assert.is(find('192.0.2.2/32'), undefined);
});

test('deleting returns whether the address existed', () => {
  assert.is(deleteAddress(own, { index, address: '10.1.2.3/24' }), true);
  assert.is(find('10.1.2.3/24'), undefined);
  assert.is(deleteAddress(own, { index, address: '10.1.2.3/24' }), false);
  assert.is(deleteAddress(own, { index, address: 'fd00::5/64' }), true);
  assert.is(deleteAddress(own, { index, address: 'fd00::5/64' }), false);
  assert.is(deleteAddress(own, { index: 4711, address: '10.1.2.3/24' }), false);
});

test.run();
