import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { fail, succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { cleanHost, hostState, ipam, makeNamespace, natRules, network, sh } from './host.ts';
import { chooseIptables, makeWorld } from './world.ts';

const test = suite('bridge and the uplinks of the host', { limit: 60 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const c1 = { id: 'cont1', netns: '/run/netns/c1' };

const OVERLAPS: readonly { what: string; route: string; ranges: readonly string[]; says: RegExp }[] = [
  {
    what: 'the default gateway',
    route: 'ip route add default via 192.0.2.2',
    ranges: ['10.88.0.0/16', '192.0.0.0/16'],
    says: /allocation subnet 192\.0\.0\.0\/16 contains 192\.0\.2\.2, the gateway of .*"default via 192\.0\.2\.2 dev up0"/,
  },
  {
    what: 'the gateway of another route',
    route: 'ip route add 203.0.113.0/24 via 192.0.2.2',
    ranges: ['192.0.2.0/24'],
    says: /"203\.0\.113\.0\/24 via 192\.0\.2\.2 dev up0"/,
  },
  {
    what: 'the address of the uplink',
    route: 'ip addr add 198.51.100.9/24 dev up0; ip route add default via 192.0.2.2',
    ranges: ['198.51.100.0/24'],
    says: /contains 198\.51\.100\.9\/24, the host's address on the uplink of route "default via .* dev up0"/,
  },
  {
    what: 'an IPv6 gateway',
    route: 'ip -6 route add default via 2001:db8::2',
    ranges: ['10.88.0.0/16', '2001:db8::/64'],
    says: /allocation subnet 2001:db8::\/64 contains 2001:db8::2, the gateway/,
  },
];

for (const { what, route, ranges, says } of OVERLAPS) {
  test(`an allocation subnet that contains ${what} is rejected before anything changes`, async () => {
    await makeWorld();
    sh(route);
    makeNamespace('c1');
    const before = hostState();
    const config = network({ ipam: ipam(ranges) });
    const error = fail('bridge', 'ADD', c1, config);
    assert.is(error.code, 7);
    assert.match(error.msg, says);
    assert.match(error.details ?? '', /"allowUplinkOverlap"/);
    assert.equal(hostState(), before);
    // Without an address on the bridge the host keeps its route.
    succeed('bridge', 'ADD', c1, { ...config, isGateway: false });
    succeed('bridge', 'DEL', c1, config);
    succeed('bridge', 'ADD', c1, { ...config, allowUplinkOverlap: true });
  });
}

test('a subnet within a larger network of the uplink is no overlap', async () => {
  await makeWorld();
  sh('ip addr add 10.1.1.9/8 dev up0; ip route add default via 10.1.1.1');
  makeNamespace('c1');
  succeed('bridge', 'ADD', c1, network());
});

test('mtu "auto" with two default paths takes the smaller MTU', () => {
  sh(`
    ip link add a0 type veth peer name a1; ip addr add 192.0.2.1/24 dev a0; ip link set a0 up; ip link set a1 up
    ip link add b0 mtu 1400 type veth peer name b1; ip addr add 198.51.100.1/24 dev b0; ip link set b0 up; ip link set b1 up
  `);
  const paths = [
    'ip route add default nexthop via 192.0.2.9 nexthop via 198.51.100.9',
    'ip route add default via 192.0.2.9 metric 1; ip route add default via 198.51.100.9 metric 2',
  ];
  for (const [at, path] of paths.entries()) {
    sh(path);
    const name = `c${at + 1}`;
    const netns = makeNamespace(name);
    const config = network({ cniVersion: '1.1.0', mtu: 'auto', bridge: `br${at}` });
    const result = succeed('bridge', 'ADD', { id: name, netns }, config) as CniResult;
    assert.is(result.interfaces[2]?.mtu, 1400, path);
    succeed('bridge', 'DEL', { id: name, netns }, config);
    sh(`ip route flush exact default; ip link del br${at}`);
  }
});

for (const [before, after] of [
  ['nft', 'legacy'],
  ['legacy', 'nft'],
] as const) {
  test(`iptables switched from ${before} to ${after} after ADD: CHECK passes, DEL and ADD again leave no old rules`, () => {
    const config = network({ ipMasq: true });
    try {
      chooseIptables(before);
      makeNamespace('c1');
      const prevResult = succeed('bridge', 'ADD', c1, config);
      chooseIptables(after);
      succeed('bridge', 'CHECK', c1, { ...config, prevResult });
      succeed('bridge', 'ADD', c1, config);
      assert.is(natRules().length, 4, 'rules of one ADD');
      succeed('bridge', 'DEL', c1, config);
      assert.equal(natRules(), []);
      chooseIptables(before);
      succeed('bridge', 'ADD', c1, config);
      chooseIptables(after);
      succeed('bridge', 'DEL', c1, config);
      assert.equal(natRules(), []);
    } finally {
      chooseIptables('nft');
    }
  });
}

test.run();
