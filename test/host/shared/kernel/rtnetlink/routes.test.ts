import * as assert from 'uvu/assert';
import { addAddress } from '../../../../../shared/kernel/rtnetlink/addresses.ts';
import { createVeth, linkByName, setLink } from '../../../../../shared/kernel/rtnetlink/links.ts';
import {
  lookupRoute,
  prependRouteRequest,
  routes,
  type RouteInfo,
  type RouteSpec,
} from '../../../../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../../../../shared/kernel/rtnetlink/rtnetlink.ts';
import { suite } from '../../../../support/suite.ts';
import { ip, kernelError, run } from '../../../../support/kernel.ts';

const test = suite('rtnetlink routes');
const own = Rtnetlink.open();
const addRoute = (rtnetlink: Rtnetlink, route: RouteSpec): void =>
  void rtnetlink.request(prependRouteRequest(route));
let link = 0;

test.before(() => {
  createVeth(own, { name: 'left', up: true, peer: { name: 'right' } });
  setLink(own, 'right', { up: true });
  link = linkByName(own, 'left')?.index ?? 0;
  addAddress(own, { index: link, address: '10.1.2.3/24' });
  addAddress(own, { index: link, address: '10.1.2.4/24' });
  addAddress(own, { index: link, address: 'fd00::5/64', noDad: true });
});

const find = (destination: string, table?: number): RouteInfo | undefined =>
  routes(own, { ...(table !== undefined && { table }) }).find((route) => route.destination === destination);

test('a default route with everything, as ip shows it', () => {
  addRoute(own, {
    destination: '0.0.0.0/0',
    gateway: '10.1.2.1',
    link,
    priority: 7,
    mtu: 1300,
    advmss: 1200,
    source: '10.1.2.4',
  });
  const [byIp] = ip('route', 'show', 'default');
  assert.equal(
    [byIp?.['gateway'], byIp?.['dev'], byIp?.['metric'], byIp?.['prefsrc'], byIp?.['protocol']],
    ['10.1.2.1', 'left', 7, '10.1.2.4', 'boot'],
  );
  assert.match(run('ip', 'route', 'show', 'default'), /mtu 1300 advmss 1200/);
  const { hops, ...route } = find('0.0.0.0/0') as RouteInfo;
  assert.equal(hops, []);
  assert.equal(route, {
    destination: '0.0.0.0/0',
    family: 'ipv4',
    gateway: '10.1.2.1',
    link,
    source: '10.1.2.4',
    priority: 7,
    table: 254,
    scope: 0,
    type: 1,
    protocol: 3,
    mtu: 1300,
    advmss: 1200,
    onLink: false,
  });
});

test('IPv6 default route', () => {
  addRoute(own, { destination: '::/0', gateway: 'fd00::1', link, mtu: 1280 });
  assert.is(ip('-6', 'route', 'show', 'default')[0]?.['gateway'], 'fd00::1');
  const route = find('::/0');
  assert.equal([route?.gateway, route?.priority, route?.mtu, route?.family], ['fd00::1', 1024, 1280, 'ipv6']);
});

test('the same destination and priority with another gateway is a further route, looked at first; the same again is EEXIST', () => {
  addRoute(own, { destination: '0.0.0.0/0', gateway: '10.1.2.9', link, priority: 7 });
  assert.equal(
    routes(own, { family: 'ipv4' })
      .filter(({ destination }) => destination === '0.0.0.0/0')
      .map(({ gateway }) => gateway),
    ['10.1.2.9', '10.1.2.1'],
  );
  kernelError('EEXIST', () =>
    addRoute(own, { destination: '0.0.0.0/0', gateway: '10.1.2.9', link, priority: 7 }),
  );
});

test('an unreachable gateway is refused with the kernel’s reason, and accepted with onLink', () => {
  const error = kernelError('ENETUNREACH', () =>
    addRoute(own, { destination: '10.9.0.0/16', gateway: '10.77.0.1', link }),
  );
  assert.is(error.detail, 'Nexthop has invalid gateway');
  assert.match(error.message, 'RTM_NEWROUTE 10.9.0.0/16 via 10.77.0.1: ENETUNREACH');
  addRoute(own, { destination: '10.9.0.0/16', gateway: '10.77.0.1', link, onLink: true });
  assert.equal([find('10.9.0.0/16')?.onLink, find('10.9.0.0/16')?.gateway], [true, '10.77.0.1']);
});

test('without a gateway the scope is the link, unless given', () => {
  addRoute(own, { destination: '169.254.1.1/32', link });
  assert.equal([find('169.254.1.1/32')?.scope, find('169.254.1.1/32')?.gateway], [253, undefined]);
  addRoute(own, { destination: '169.254.2.0/24', link, scope: 0 });
  assert.is(find('169.254.2.0/24')?.scope, 0);
  addRoute(own, { destination: 'fd77::/64', link });
  assert.is(find('fd77::/64')?.link, link);
});

test('host bits are cleared', () => {
  addRoute(own, { destination: '10.60.1.2/16', gateway: '10.1.2.1', link });
  assert.is(find('10.60.0.0/16')?.gateway, '10.1.2.1');
});

test('other tables, small and large numbers, are kept apart', () => {
  addRoute(own, { destination: '10.70.0.0/16', gateway: '10.1.2.1', link, table: 100 });
  addRoute(own, { destination: '10.71.0.0/16', gateway: '10.1.2.1', link, table: 70000 });
  assert.is(find('10.70.0.0/16'), undefined);
  assert.equal(
    routes(own, { table: 100 }).map(({ destination, table }) => [destination, table]),
    [['10.70.0.0/16', 100]],
  );
  assert.equal(
    routes(own, { table: 70000 }).map(({ destination, table }) => [destination, table]),
    [['10.71.0.0/16', 70000]],
  );
  assert.equal(routes(own, { table: 4711 }), []);
});

test('lists agree with ip, by family and by link', () => {
  const destinations = (found: readonly RouteInfo[]): string[] =>
    found.map(({ destination }) => destination).sort();
  const byIp = (...args: string[]): string[] =>
    ip(...args)
      .map(({ dst }) => String(dst))
      .map((dst) => (dst === 'default' ? (args[0] === '-6' ? '::/0' : '0.0.0.0/0') : dst))
      .map((dst) => (dst.includes('/') ? dst : `${dst}/${dst.includes(':') ? 128 : 32}`))
      .sort();
  assert.equal(destinations(routes(own, { family: 'ipv4' })), byIp('-4', 'route', 'show'));
  assert.equal(destinations(routes(own, { family: 'ipv6' })), byIp('-6', 'route', 'show'));
  assert.equal(
    destinations(routes(own, { family: 'ipv4', link })),
    byIp('-4', 'route', 'show', 'dev', 'left'),
  );
  assert.equal(routes(own, { link: 4711 }), []);
});

test('all hops of a multipath route are listed', () => {
  run(
    'ip',
    'route',
    'add',
    '10.80.0.0/16',
    'nexthop',
    'via',
    '10.1.2.20',
    'dev',
    'left',
    'nexthop',
    'via',
    '10.1.2.21',
    'dev',
    'left',
  );
  assert.equal(find('10.80.0.0/16')?.hops, [
    { gateway: '10.1.2.20', link },
    { gateway: '10.1.2.21', link },
  ]);
  assert.is(find('10.80.0.0/16')?.gateway, '10.1.2.20');
});

test('a lookup returns link, source and gateway', () => {
  const far = lookupRoute(own, '8.8.8.8');
  assert.equal([far?.link, far?.gateway, far?.source, far?.type], [link, '10.1.2.9', '10.1.2.3', 1]);
  const near = lookupRoute(own, '10.1.2.77');
  assert.equal([near?.link, near?.gateway, near?.source], [link, undefined, '10.1.2.3']);
  const self = lookupRoute(own, '10.1.2.4');
  assert.equal([self?.link, self?.type], [1, 2]);
  assert.equal(
    [lookupRoute(own, '2001:db8::1')?.link, lookupRoute(own, '2001:db8::1')?.source],
    [link, 'fd00::5'],
  );
});

test('a lookup without a route is undefined', () => {
  for (const [kind, address] of [
    ['unreachable', '10.90.0.1'],
    ['blackhole', '10.91.0.1'],
    ['prohibit', '10.92.0.1'],
    ['unreachable', 'fd90::1'],
    ['blackhole', 'fd91::1'],
    ['prohibit', 'fd92::1'],
  ] as const) {
    run('ip', 'route', 'add', kind, address);
    assert.is(lookupRoute(own, address), undefined, `${kind} ${address}`);
  }
  for (const args of ['route flush default', '-6 route del default']) run('ip', ...args.split(' '));
  assert.is(lookupRoute(own, '8.8.8.8'), undefined);
  assert.is(lookupRoute(own, '2001:db8::1'), undefined);
});

test.run();
