import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  addressesOf,
  cleanHost,
  DUAL,
  ip,
  ipam,
  link,
  makeNamespace,
  network,
  readSysctl,
  routesOf,
  sh,
  startHelper,
} from './host.ts';

const test = suite('bridge ADD');
test.beforeEach(cleanHost);
test.after(cleanHost);

const add = (config: object, id = 'cont1', own: object = {}): CniResult =>
  succeed('bridge', 'ADD', { id, netns: '/run/netns/c1', ...own }, config) as CniResult;

test('an interface, its end on the bridge, addresses, and a result that says so', async () => {
  makeNamespace('c1');
  const result = add(network({ ipam: ipam(DUAL) }));
  const [bridge, host, container] = result.interfaces;
  assert.is(result.interfaces.length, 3);

  const shown = link('br0');
  assert.is(shown?.linkinfo?.info_kind, 'bridge');
  assert.ok(shown?.flags.includes('UP'));
  assert.equal(bridge, { name: 'br0', mac: shown?.address });

  assert.match(host?.name ?? '', /^veth[0-9a-f]{8}$/);
  const end = link(host?.name ?? '');
  assert.is(end?.master, 'br0');
  assert.is(end?.operstate, 'UP');
  assert.is(end?.ifalias, 'weft:net1/cont1/eth0');
  assert.is(host?.mac, end?.address);

  const inside = link('eth0', 'c1');
  assert.is(inside?.operstate, 'UP');
  assert.is(container?.name, 'eth0');
  assert.is(container?.sandbox, '/run/netns/c1');
  assert.is(container?.mac, inside?.address);
  assert.equal(addressesOf('eth0', 'c1'), ['10.88.0.2/16', 'fd00:88::2/64']);
  assert.equal(result.ips, [
    { interface: 2, address: '10.88.0.2/16', gateway: '10.88.0.1' },
    { interface: 2, address: 'fd00:88::2/64', gateway: 'fd00:88::1' },
  ]);
  assert.equal(result.routes, [{ dst: '0.0.0.0/0' }, { dst: '::/0' }]);

  await startHelper('echo.ts', 'c1');
  const prober = await startHelper('probe.ts', undefined);
  assert.match(await prober.ask('10.88.0.2 1000'), / 10\.88\.0\.1$/);
  assert.match(await prober.ask('fd00:88::2 1000'), / fd00:88::1$/);
});

test('the broadcast address is the last one of the subnet', () => {
  makeNamespace('c1');
  add(network());
  assert.match(sh('ip -n c1 addr show eth0'), /inet 10\.88\.0\.2\/16 brd 10\.88\.255\.255/);
});

test('the bridge is the gateway, the first address of the network by default, and the host forwards', () => {
  makeNamespace('c1');
  assert.is(readSysctl('net/ipv4/ip_forward'), '0');
  add(network({ ipam: ipam(DUAL) }));
  assert.equal(addressesOf('br0'), ['10.88.0.1/16', 'fd00:88::1/64']);
  assert.is(readSysctl('net/ipv4/ip_forward'), '1');
  assert.is(readSysctl('net/ipv6/conf/all/forwarding'), '1');
});

test('a gateway that the configuration names', () => {
  makeNamespace('c1');
  const ranges = [[{ subnet: '10.88.0.0/16', gateway: '10.88.0.254' }]];
  add(network({ ipam: ipam([], { ranges, routes: [{ dst: '0.0.0.0/0' }] }) }));
  assert.equal(addressesOf('br0'), ['10.88.0.254/16']);
  assert.is(routesOf('c1').find(({ dst }) => dst === 'default')?.gateway, '10.88.0.254');
});

test('without isGateway the bridge gets no address and forwarding stays off', () => {
  makeNamespace('c1');
  add(network({ isGateway: false }));
  assert.equal(addressesOf('br0'), []);
  assert.is(readSysctl('net/ipv4/ip_forward'), '0');
});

test('switching IPv6 forwarding on leaves the host its own default route from router advertisements', () => {
  makeNamespace('c1');
  sh('ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up');
  sh('ip -6 route add default via fe80::1 dev up0 proto ra');
  assert.is(readSysctl('net/ipv6/conf/up0/accept_ra'), '1');
  add(network({ ipam: ipam(DUAL) }));
  assert.is(readSysctl('net/ipv6/conf/up0/accept_ra'), '2');
  assert.is(readSysctl('net/ipv6/conf/up1/accept_ra'), '1');
});

test('isDefaultGateway gives a default route in every family, also in the result', () => {
  makeNamespace('c1');
  const config = network({ isGateway: false, isDefaultGateway: true, ipam: ipam(DUAL, { routes: [] }) });
  const { routes } = add(config);
  assert.equal(routes, [
    { dst: '0.0.0.0/0', gw: '10.88.0.1' },
    { dst: '::/0', gw: 'fd00:88::1' },
  ]);
  assert.is(routesOf('c1').find(({ dst }) => dst === 'default')?.gateway, '10.88.0.1');
  assert.is(routesOf('c1', 6).find(({ dst }) => dst === 'default')?.gateway, 'fd00:88::1');
  assert.equal(addressesOf('br0'), ['10.88.0.1/16', 'fd00:88::1/64']);
});

test('isDefaultGateway together with a default route of IPAM is one route', () => {
  makeNamespace('c1');
  const { routes } = add(network({ isDefaultGateway: true, ipam: ipam(DUAL) }));
  assert.equal(routes, [
    { dst: '0.0.0.0/0', gw: '10.88.0.1' },
    { dst: '::/0', gw: 'fd00:88::1' },
  ]);
  assert.is(routesOf('c1').filter(({ dst }) => dst === 'default').length, 1);
});

test('routes carry gateway, metric, MTU, MSS, table and scope', () => {
  makeNamespace('c1');
  const routes = [
    { dst: '192.0.2.0/24', gw: '10.88.0.9', priority: 77, mtu: 1400, advmss: 1300 },
    { dst: '198.51.100.0/24', table: 100 },
    { dst: '203.0.113.7/24' },
    { dst: '203.0.113.0/24' },
  ];
  const result = add(network({ ipam: ipam(['10.88.0.0/16'], { routes }) }));
  assert.equal(result.routes, routes);
  const shown = routesOf('c1').find(({ dst }) => dst === '192.0.2.0/24');
  assert.equal([shown?.gateway, shown?.metric, shown?.dev], ['10.88.0.9', 77, 'eth0']);
  assert.equal(shown?.metrics, [{ mtu: 1400, advmss: 1300 }]);
  assert.is(ip<{ dst: string }>('route show table 100', 'c1')[0]?.dst, '198.51.100.0/24');
  assert.is(routesOf('c1').filter(({ dst }) => dst === '203.0.113.0/24').length, 1);
});

test('several gateways for one destination, and the subnet itself as a destination, as the reference takes them', () => {
  makeNamespace('c1');
  const routes = [
    { dst: '192.0.2.0/24', gw: '10.88.0.8' },
    { dst: '192.0.2.0/24', gw: '10.88.0.9' },
    { dst: '2001:db8:9::/64', gw: 'fd00:88::8' },
    { dst: '2001:db8:9::/64', gw: 'fd00:88::9' },
    { dst: '10.88.0.0/16' },
  ];
  const config = network({ ipam: ipam(DUAL, { routes }) });
  const prevResult = add(config);
  const gateways = (dst: string, family: 4 | 6): (string | undefined)[] =>
    routesOf('c1', family)
      .filter((route) => route.dst === dst)
      .flatMap(({ gateway, nexthops = [] }) => [gateway, ...nexthops.map((hop) => hop.gateway)])
      .filter((gateway) => gateway !== undefined)
      .sort();
  assert.equal(gateways('192.0.2.0/24', 4), ['10.88.0.8', '10.88.0.9']);
  assert.equal(gateways('2001:db8:9::/64', 6), ['fd00:88::8', 'fd00:88::9']);
  assert.equal(gateways('10.88.0.0/16', 4), ['10.88.0.1']);
  succeed('bridge', 'CHECK', { id: 'cont1', netns: '/run/netns/c1' }, { ...config, prevResult });
});

test('table 0 is the main one, as for the kernel: no second default route, and CHECK finds it', () => {
  makeNamespace('c1');
  const routes = [{ dst: '0.0.0.0/0', table: 0 }, { dst: '192.0.2.0/24', table: 0 }, { dst: '192.0.2.0/24' }];
  const config = network({ isDefaultGateway: true, ipam: ipam(['10.88.0.0/16'], { routes }) });
  const prevResult = add(config);
  assert.equal(
    routesOf('c1').map(({ dst }) => dst),
    ['default', '10.88.0.0/16', '192.0.2.0/24'],
  );
  succeed('bridge', 'CHECK', { id: 'cont1', netns: '/run/netns/c1' }, { ...config, prevResult });
});

test('IPv6 addresses of container and bridge are usable on return', () => {
  makeNamespace('c1');
  add(network({ ipam: ipam(DUAL) }));
  assert.not.match(sh('ip -n c1 -6 addr show dev eth0 scope global'), /tentative/);
  assert.not.match(sh('ip -6 addr show dev br0 scope global'), /tentative/);
});

test.run();
