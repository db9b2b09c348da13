import * as assert from 'uvu/assert';
import { conflicting, planLayer3 } from '../../../../plugins/bridge/plan.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('bridge plan');
const none = { isGateway: false, isDefaultGateway: false };
const gateway = { isGateway: true, isDefaultGateway: false };
const byDefault = { isGateway: true, isDefaultGateway: true };

test('without a gateway of its own the bridge takes the first address of the network', () => {
  const plan = planLayer3(gateway, {
    ips: [{ address: '10.1.2.77/20' }, { address: 'FD00::5/64' }],
    routes: [],
  });
  assert.equal(plan.gateways, ['10.1.0.1/20', 'fd00::1/64']);
  assert.equal(plan.addresses, ['10.1.2.77/20', 'fd00::5/64']);
  assert.equal(plan.families, ['ipv4', 'ipv6']);
  assert.equal(plan.ips, [
    { interface: 2, address: '10.1.2.77/20', gateway: '10.1.0.1' },
    { interface: 2, address: 'fd00::5/64', gateway: 'fd00::1' },
  ]);
});

test('without isGateway nothing is made up', () => {
  const plan = planLayer3(none, { ips: [{ address: '10.1.2.77/20' }], routes: [{ dst: '0.0.0.0/0' }] });
  assert.equal(plan.gateways, []);
  assert.equal(plan.ips, [{ interface: 2, address: '10.1.2.77/20' }]);
  assert.equal(plan.routes, [{ destination: '0.0.0.0/0', gateway: undefined, route: { dst: '0.0.0.0/0' } }]);
});

test('a route without a gateway goes through the first one of its family', () => {
  const ips = [
    { address: '10.1.0.2/24', gateway: '10.1.0.1' },
    { address: '10.2.0.2/24', gateway: '10.2.0.1' },
    { address: 'fd00::2/64', gateway: 'fd00::1' },
  ];
  const routes = [{ dst: '192.0.2.7/24' }, { dst: '192.0.3.0/24', gw: '10.2.0.9' }, { dst: '::/0' }];
  const plan = planLayer3(none, { ips, routes });
  assert.equal(
    plan.routes.map(({ destination, gateway: by }) => [destination, by]),
    [
      ['192.0.2.0/24', '10.1.0.1'],
      ['192.0.3.0/24', '10.2.0.9'],
      ['::/0', 'fd00::1'],
    ],
  );
  assert.equal(plan.resultRoutes, routes);
});

test('isDefaultGateway: one default route a family, whichever way IPAM wrote it', () => {
  const ips = [{ address: '10.1.0.2/24' }];
  const destination = (routes: { dst: string; gw?: string; table?: number }[]): unknown =>
    planLayer3(byDefault, { ips, routes }).resultRoutes;
  const ours = { dst: '0.0.0.0/0', gw: '10.1.0.1' };
  assert.equal(destination([]), [ours]);
  assert.equal(destination([{ dst: '0.0.0.0/0' }]), [ours]);
  assert.equal(destination([{ dst: '10.9.9.9/0' }]), [{ dst: '10.9.9.9/0', gw: '10.1.0.1' }]);
  assert.equal(destination([{ dst: '0.0.0.0/0', gw: '10.1.0.7' }]), [{ dst: '0.0.0.0/0', gw: '10.1.0.7' }]);
  assert.equal(destination([{ dst: '0.0.0.0/0', table: 7 }]), [{ dst: '0.0.0.0/0', table: 7 }, ours]);
});

test('the same address, gateway or route twice is one', () => {
  const ip = { address: '10.1.0.2/24', gateway: '10.1.0.1' };
  const plan = planLayer3(gateway, {
    ips: [ip, { ...ip }],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '0.0.0.0/0' }],
  });
  assert.equal([plan.addresses.length, plan.gateways.length, plan.routes.length], [1, 1, 1]);
});

test('IPAM results that cannot be used are rejected with the reason', () => {
  const refused = (ips: object[], routes: object[] = []): string =>
    thrown(() => planLayer3(gateway, { ips: ips as never, routes: routes as never })).message;
  assert.is(refused([]), 'IPAM plugin returned missing IP config');
  assert.match(refused([{ address: '10.1.0.2' }]), /"10\.1\.0\.2" is not of the form/);
  assert.match(refused([{ address: '10.1.0.2/24', gateway: 'x' }]), /gateway "x" is not an IP address/);
  assert.match(refused([{ address: '10.1.0.2/24', gateway: 'fd00::1' }]), /not of the family/);
  assert.match(refused([{ address: '10.1.0.1/24' }]), /is the bridge's gateway address/);
  const good = [{ address: '10.1.0.2/24' }];
  assert.match(refused(good, [{ dst: 'nowhere' }]), /"nowhere" has no valid destination/);
  assert.match(refused(good, [{ dst: '0.0.0.0/0', gw: 'fd00::1' }]), /unusable gateway "fd00::1"/);
});

test('what is in the way of a gateway address: any other IPv4 one, overlapping IPv6, none that is planned', () => {
  const present = ['10.1.0.1/24', '10.2.0.1/24', 'fd00:1::1/64', 'fd00:2::1/64', 'fe80::1/64'];
  assert.equal(conflicting('10.3.0.1/24', present, []), ['10.1.0.1/24', '10.2.0.1/24']);
  assert.equal(conflicting('10.3.0.1/24', present, ['10.1.0.1/24']), ['10.2.0.1/24']);
  assert.equal(conflicting('fd00:3::1/64', present, []), []);
  assert.equal(conflicting('fd00:1::7/80', present, []), ['fd00:1::1/64']);
  assert.equal(conflicting('fd00::1/16', present, []), ['fd00:1::1/64', 'fd00:2::1/64']);
});

test.run();
