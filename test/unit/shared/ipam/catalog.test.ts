import * as assert from 'uvu/assert';
import { formatAddress, parseAddress, type IpAddress } from '../../../../shared/net/address.ts';
import { Catalog, MemorySlots } from '../../../../shared/ipam/catalog.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('catalog');

test('knows owners and taken addresses of both families, and forgets them without a trace', () => {
  const catalog = new Catalog(new MemorySlots(64));
  const owned: [string, string][] = [
    ['10.1.2.2', 'a\r\neth0'],
    ['10.1.2.3', 'a\r\neth0'],
    ['fd00::2', 'a\r\neth0'],
    ['::a01:202', 'b'],
  ];
  for (const [address, owner] of owned) catalog.add(ip(address), owner);
  catalog.add(ip('10.1.2.4'), undefined);
  assert.equal(catalog.addressesOf('a\r\neth0').map(formatAddress).sort(), [
    '10.1.2.2',
    '10.1.2.3',
    'fd00::2',
  ]);
  assert.equal(catalog.addressesOf('b').map(formatAddress), ['::a01:202']);
  assert.equal(catalog.addressesOf('c'), []);
  assert.ok(catalog.isTaken(ip('10.1.2.4')));
  assert.not(catalog.isTaken(ip('10.1.2.5')));
  assert.not(catalog.isTaken(ip('fd00::3')));
  for (const [address, owner] of owned) catalog.remove(ip(address), owner);
  catalog.remove(ip('10.1.2.4'), undefined);
  assert.is(catalog.used, 0);
});

test('finds the first free address as a walk over all of them would', () => {
  for (let round = 0; round < 300; round++) {
    const catalog = new Catalog(new MemorySlots(64));
    const base = ip(round % 2 === 0 ? '10.1.254.0' : 'fd00::ff00').value;
    const family = round % 2 === 0 ? 'ipv4' : 'ipv6';
    const density = Math.random() < 0.3 ? 1 : Math.random();
    const taken = new Set<bigint>();
    for (let offset = 0n; offset < 1000n; offset++) {
      if (Math.random() > density) continue;
      taken.add(base + offset);
      catalog.add({ family, value: base + offset }, undefined);
    }
    const first = base + BigInt(Math.floor(Math.random() * 1000));
    const last = first + BigInt(Math.floor(Math.random() * 800));
    let expected: bigint | undefined;
    for (let value = first; value <= last && expected === undefined; value++)
      if (!taken.has(value)) expected = value;
    assert.is(
      catalog.firstFree({ first: { family, value: first }, last: { family, value: last } })?.value,
      expected,
    );
  }
});

test.run();

function ip(text: string): IpAddress {
  return parseAddress(text) as IpAddress;
}
