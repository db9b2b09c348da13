import * as assert from 'uvu/assert';
import {
  compareAddresses,
  formatAddress,
  parseAddress,
  type IpAddress,
} from '../../../../shared/net/address.ts';
import {
  nextFree,
  readRangeSets,
  ring,
  type Interval,
  type RangeSet,
  type RawRange,
} from '../../../../shared/ipam/ranges.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('order of allocation');

const small = setOf({ subnet: '10.1.2.0/29' });
const two = setOf({ subnet: '10.1.2.0/29' }, { subnet: '10.9.0.0/30' });

test('begins at the start, then after the last one, round to the last one itself', () => {
  assert.equal(walk(small, undefined), '1 2 3 4 5 6');
  assert.equal(walk(small, '10.1.2.3'), '4 5 6 1 2 3');
  assert.equal(walk(small, '10.1.2.6'), '1 2 3 4 5 6');
  assert.equal(walk(small, '10.7.7.7'), '1 2 3 4 5 6');
});

test('crosses from range to range and back', () => {
  assert.equal(walk(two, '10.1.2.5'), '6 9.1 9.2 1 2 3 4 5');
  assert.equal(walk(two, '10.9.0.1'), '9.2 1 2 3 4 5 6 9.1');
  assert.equal(walk(two, '10.9.0.2'), '1 2 3 4 5 6 9.1 9.2');
});

test('stops at the very last address of a family', () => {
  const top = setOf({ subnet: 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126' });
  const last = top[0]?.last as IpAddress;
  assert.is(
    nextFree(top, last, firstNotIn([]), () => true),
    undefined,
  );
  assert.equal(ring(top, last).length, 1);
});

test('agrees with walking every address one by one, for random sets, leases and exclusions', () => {
  for (let round = 0; round < 2000; round++) {
    const set = Math.random() < 0.5 ? small : two;
    const all = ring(set, undefined).flatMap(expand);
    const taken = all.filter(() => Math.random() < 0.7);
    const excluded = all.filter(() => Math.random() < 0.2);
    const last = all[Math.floor(Math.random() * all.length)] as IpAddress;
    const isIn = (list: IpAddress[], address: IpAddress): boolean =>
      list.some((other) => compareAddresses(other, address) === 0);

    const at = all.findIndex((address) => compareAddresses(address, last) === 0);
    const slowly = [...all.slice(at + 1), ...all.slice(0, at + 1)].find(
      (address) => !isIn(taken, address) && !isIn(excluded, address),
    );
    const found = nextFree(set, last, firstNotIn(taken), (address) => isIn(excluded, address));
    assert.is(
      found === undefined ? '' : formatAddress(found),
      slowly === undefined ? '' : formatAddress(slowly),
    );
  }
});

test.run();

function setOf(...raw: RawRange[]): RangeSet {
  const { sets, problems } = readRangeSets([raw]);
  assert.equal(problems, []);
  return sets[0] as RangeSet;
}

function walk(set: RangeSet, last: string | undefined): string {
  const order = ring(set, last === undefined ? undefined : parseAddress(last))
    .flatMap(expand)
    .map(formatAddress);
  return order.map((address) => address.replace('10.1.2.', '').replace('10.9.0.', '9.')).join(' ');
}

function expand({ first, last }: Interval): IpAddress[] {
  const addresses: IpAddress[] = [];
  for (let value = first.value; value <= last.value; value++) addresses.push({ family: first.family, value });
  return addresses;
}

function firstNotIn(taken: IpAddress[]): (interval: Interval) => IpAddress | undefined {
  return (interval) =>
    expand(interval).find((address) => !taken.some((other) => compareAddresses(other, address) === 0));
}
