import * as assert from 'uvu/assert';
import { formatAddress } from '../../../../shared/net/address.ts';
import { describeSet, readRangeSets, type RawRange } from '../../../../shared/ipam/ranges.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('ranges');

test('defaults: from the address after the network to the last that is no broadcast, gateway first', () => {
  assert.is(defaults('10.1.2.0/24'), '10.1.2.1-10.1.2.254 via 10.1.2.1');
  assert.is(defaults('172.26.64.0/20'), '172.26.64.1-172.26.79.254 via 172.26.64.1');
  assert.is(defaults('10.1.2.8/30'), '10.1.2.9-10.1.2.10 via 10.1.2.9');
  assert.is(defaults('2001:db8:1::/64'), '2001:db8:1::1-2001:db8:1:0:ffff:ffff:ffff:ffff via 2001:db8:1::1');
  assert.is(defaults('fd00::/126'), 'fd00::1-fd00::3 via fd00::1');
});

test('given limits and gateway, which may be anywhere; empty texts count as absent', () => {
  const given = {
    subnet: '10.1.2.0/24',
    rangeStart: '10.1.2.10',
    rangeEnd: '10.1.2.20',
    gateway: '192.0.2.1',
  };
  assert.is(describeOne(given), '10.1.2.10-10.1.2.20 via 192.0.2.1');
  const empty = { subnet: '10.1.2.0/24', rangeStart: '', rangeEnd: '', gateway: '' };
  assert.is(describeOne(empty), '10.1.2.1-10.1.2.254 via 10.1.2.1');
  assert.is(
    describeOne({ subnet: '10.1.2.0/24', rangeStart: '::ffff:10.1.2.9' }),
    '10.1.2.9-10.1.2.254 via 10.1.2.1',
  );
});

test('what is wrong with a range, in words', () => {
  const cases: [RawRange, string][] = [
    [{ subnet: 'foo' }, 'invalid CIDR address: foo'],
    [{}, 'invalid CIDR address: "subnet" is required, like "10.1.2.0/24"'],
    [{ subnet: '10.1.2.0/24', gateway: 'zz' }, 'invalid IP address: zz (gateway)'],
    [{ subnet: '10.1.2.0/31' }, 'Network 10.1.2.0/31 too small to allocate from'],
    [{ subnet: '10.1.2.1/32' }, 'Network 10.1.2.1/32 too small to allocate from'],
    [{ subnet: 'fd00::/127' }, 'Network fd00::/127 too small to allocate from'],
    [
      { subnet: '10.1.2.3/24' },
      'Network has host bits set. For a subnet mask of length 24 the network address is 10.1.2.0 (given: 10.1.2.3/24 has host bits set)',
    ],
    [{ subnet: '10.1.2.0/24', rangeStart: '10.1.3.4' }, 'RangeStart 10.1.3.4 not in network 10.1.2.0/24'],
    [{ subnet: '10.1.2.0/24', rangeStart: 'fd00::1' }, 'RangeStart fd00::1 not in network 10.1.2.0/24'],
    [{ subnet: '10.1.2.0/24', rangeEnd: '10.1.3.4' }, 'RangeEnd 10.1.3.4 not in network 10.1.2.0/24'],
    [
      { subnet: '10.1.2.0/24', rangeStart: '10.1.2.20', rangeEnd: '10.1.2.10' },
      'RangeStart 10.1.2.20 is after RangeEnd 10.1.2.10',
    ],
  ];
  for (const [raw, problem] of cases) {
    assert.equal(readRangeSets([[raw]]).problems, [`invalid range set 0: ${problem}`], problem);
  }
});

test('all problems are reported together, with their range set', () => {
  const { problems } = readRangeSets([
    [{ subnet: '10.1.2.0/24', rangeStart: 'a', rangeEnd: 'b' }],
    [],
    [{ subnet: '10.1.3.0/24' }, { subnet: 'fd00::/64' }],
  ]);
  assert.equal(problems, [
    'invalid range set 0: invalid IP address: a (rangeStart)',
    'invalid range set 0: invalid IP address: b (rangeEnd)',
    'invalid range set 1: empty range set (give it at least one {"subnet": ...})',
    'invalid range set 2: mixed address families: 10.1.3.0/24, fd00::/64',
  ]);
  assert.equal(readRangeSets([]).problems, ['no IP ranges specified']);
});

test('overlaps within a set and between sets', () => {
  const half = (rangeStart: string, rangeEnd: string): RawRange => ({
    subnet: '10.1.2.0/24',
    rangeStart,
    rangeEnd,
  });
  const low = half('10.1.2.10', '10.1.2.20');
  const touching = half('10.1.2.20', '10.1.2.30');
  assert.equal(readRangeSets([[low, touching]]).problems, [
    'invalid range set 0: subnets 10.1.2.10-10.1.2.20 and 10.1.2.20-10.1.2.30 overlap',
  ]);
  assert.equal(readRangeSets([[low], [{ subnet: '10.9.0.0/16' }], [touching]]).problems, [
    'range set 0 overlaps with 2: 10.1.2.10-10.1.2.20 and 10.1.2.20-10.1.2.30',
  ]);
  assert.equal(
    readRangeSets([[half('10.1.2.5', '10.1.2.200')], [half('10.1.2.50', '10.1.2.60')]]).problems.length,
    1,
  );
  assert.equal(readRangeSets([[low, half('10.1.2.21', '10.1.2.30')]]).problems, []);
  assert.equal(readRangeSets([[{ subnet: '::/1' }], [{ subnet: '10.0.0.0/8' }]]).problems, []);
});

test.run();

function defaults(subnet: string): string {
  return describeOne({ subnet });
}

function describeOne(raw: RawRange): string {
  const { sets, problems } = readRangeSets([[raw]]);
  assert.equal(problems, []);
  const [set = []] = sets;
  return `${describeSet(set)} via ${set.map(({ gateway }) => formatAddress(gateway)).join()}`;
}
