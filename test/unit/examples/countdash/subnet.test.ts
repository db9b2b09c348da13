import * as assert from 'uvu/assert';
import { chooseSubnet, gatewayOf } from '../../../../examples/countdash/plan.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('subnet of the example');

test('takes the first candidate on a host without routes to speak of', () => {
  assert.is(
    chooseSubnet('ipv4', ['0.0.0.0/0', 'default', '127.0.0.0/8', '192.0.2.0/24'], []),
    '172.27.90.0/24',
  );
  assert.is(chooseSubnet('ipv6', ['::/0', '::1', 'fe80::/64'], []), 'fd77:6566:74de::/64');
});

test('passes over what overlaps a route, narrower, wider or single', () => {
  assert.is(chooseSubnet('ipv4', ['172.27.90.128/25'], []), '172.27.91.0/24');
  assert.is(chooseSubnet('ipv4', ['172.27.90.7', '172.27.91.0/24'], []), '172.27.92.0/24');
  assert.is(chooseSubnet('ipv4', ['172.16.0.0/12'], []), '10.231.0.0/24');
  assert.is(chooseSubnet('ipv4', ['172.16.0.0/12', '10.0.0.0/8'], []), '192.168.255.0/24');
  assert.is(chooseSubnet('ipv6', ['fd77:6566:74de::/64'], []), 'fd77:6566:74de:1::/64');
});

test('keeps name servers reachable, which a default route leads to', () => {
  assert.is(chooseSubnet('ipv4', [], ['172.27.90.53', 'not-an-address']), '172.27.91.0/24');
});

test('says so when nothing is free', () => {
  assert.match(
    thrown(() => chooseSubnet('ipv4', ['0.0.0.0/1', '128.0.0.0/1'], [])).message,
    /no ipv4 subnet is free/,
  );
});

test("the bridge's address is the subnet's first", () => {
  assert.is(gatewayOf('172.27.90.0/24'), '172.27.90.1');
  assert.is(gatewayOf('fd77:6566:74de::/64'), 'fd77:6566:74de::1');
});

test.run();
