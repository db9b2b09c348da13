import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { fail, succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  addressesOf,
  cleanHost,
  DUAL,
  hostState,
  ipam,
  leases,
  link,
  makeNamespace,
  network,
  readSysctl,
  sh,
} from './host.ts';

const test = suite('bridge ADD: options');
test.beforeEach(cleanHost);
test.after(cleanHost);

const add = (config: object, id = 'cont1', own: object = {}): CniResult =>
  succeed('bridge', 'ADD', { id, netns: '/run/netns/c1', ...own }, config) as CniResult;

test('the MTU is that of a new bridge and of both ends; 1.1.0 reports it', () => {
  makeNamespace('c1');
  const { interfaces } = add(network({ cniVersion: '1.1.0', mtu: 1400 }));
  assert.equal(
    interfaces.map(({ mtu }) => mtu),
    [1400, 1400, 1400],
  );
  assert.equal(
    [link('br0')?.mtu, link('eth0', 'c1')?.mtu, link(interfaces[1]?.name ?? '')?.mtu],
    [1400, 1400, 1400],
  );
});

test('an existing bridge keeps its MTU as far as the kernel lets it', () => {
  makeNamespace('c1');
  sh('ip link add br0 type bridge');
  sh('ip link set br0 mtu 1300');
  add(network({ mtu: 1400 }));
  assert.is(link('br0')?.mtu, 1300);
  assert.is(link('eth0', 'c1')?.mtu, 1400);
});

test('mtu auto is that of the device of the default route; without one the kernel decides', () => {
  makeNamespace('c1');
  add(network({ mtu: 'auto' }));
  assert.is(link('eth0', 'c1')?.mtu, 1500);
  cleanHost();

  makeNamespace('c1');
  sh('ip link add up0 mtu 1450 type veth peer name up1; ip link set up0 up; ip link set up1 up');
  sh('ip addr add 192.0.2.2/24 dev up0; ip route add default via 192.0.2.1 metric 50');
  sh(
    'ip link add up2 mtu 9000 type veth peer name up3; ip link set up2 up; ip addr add 192.0.3.2/24 dev up2',
  );
  sh('ip route add default via 192.0.3.1 metric 100');
  const { interfaces } = add(network({ cniVersion: '1.1.0', mtu: 'auto' }));
  assert.equal(
    interfaces.map(({ mtu }) => mtu),
    [1450, 1450, 1450],
  );
});

test('an MTU too small for IPv6 is refused before the kernel switches IPv6 off in silence', () => {
  makeNamespace('c1');
  const before = hostState();
  const error = fail(
    'bridge',
    'ADD',
    { id: 'cont1', netns: '/run/netns/c1' },
    network({ mtu: 1000, ipam: ipam(DUAL) }),
  );
  assert.is(error.code, 7);
  assert.match(error.msg, /mtu 1000 .* at least 1280/);
  assert.equal(hostState(), before);
});

test('the MAC that was asked for: runtimeConfig before args.cni before CNI_ARGS', () => {
  const mac = (last: string): string => `02:00:00:00:00:${last}`;
  const asked: [object, string, string][] = [
    [{ runtimeConfig: { mac: mac('0a') }, args: { cni: { mac: mac('0b') } } }, `MAC=${mac('0c')}`, mac('0a')],
    [{ args: { cni: { mac: '02-00-00-00-00-0B' } } }, `MAC=${mac('0c')}`, mac('0b')],
    [{}, `MAC=${mac('0c')}`, mac('0c')],
    [{ RuntimeConfig: { MAC: mac('0d') } }, '', mac('0d')],
  ];
  for (const [own, args, expected] of asked) {
    cleanHost();
    makeNamespace('c1');
    const result = add(network(own as Record<string, unknown>), 'cont1', { args });
    assert.is(link('eth0', 'c1')?.address, expected);
    assert.is(result.interfaces[2]?.mac, expected);
  }
});

test('what is no MAC is refused, and so is an unknown key, before anything is made', () => {
  makeNamespace('c1');
  const before = hostState();
  const at = { id: 'cont1', netns: '/run/netns/c1' };
  for (const mac of ['zz', '01:00:5e:00:00:01', '00:00:00:00:00:00', '02:00:00:00:00']) {
    const error = fail('bridge', 'ADD', at, network({ runtimeConfig: { mac } }));
    assert.is(error.code, 7);
    assert.match(error.msg, /runtimeConfig.*invalid MAC address/);
    assert.match(
      fail('bridge', 'ADD', { ...at, args: `MAC=${mac}` }, network()).msg,
      /invalid MAC address in CNI_ARGS/,
    );
  }
  assert.match(fail('bridge', 'ADD', { ...at, args: 'FOO=1' }, network()).msg, /unknown args \["FOO=1"\]/);
  assert.equal(hostState(), before);
});

test('a name that the kernel would number is refused before anything is made', () => {
  makeNamespace('c1');
  const before = hostState();
  const error = fail('bridge', 'ADD', { id: 'cont1', netns: '/run/netns/c1', ifname: 'eth%d' }, network());
  assert.equal([error.code, error.msg], [4, 'CNI_IFNAME must not contain "%", got "eth%d"']);
  assert.equal(hostState(), before);
});

test('hairpin and isolation on the port, promiscuous mode on the bridge', () => {
  makeNamespace('c1');
  const { interfaces } = add(network({ hairpinMode: true, portIsolation: true }));
  const port = link(interfaces[1]?.name ?? '')?.linkinfo?.info_slave_data;
  assert.equal([port?.['hairpin'], port?.['isolated']], [true, true]);
  cleanHost();

  makeNamespace('c1');
  const plain = add(network({ promiscMode: true })).interfaces[1]?.name ?? '';
  assert.ok(link('br0')?.flags.includes('PROMISC'));
  const off = link(plain)?.linkinfo?.info_slave_data;
  assert.equal([off?.['hairpin'], off?.['isolated']], [false, false]);
});

test('all contradictions of the configuration are reported at once, and nothing is created', () => {
  makeNamespace('c1');
  const before = hostState();
  const config = network({ hairpinMode: true, promiscMode: true, disableContainerInterface: true });
  const error = fail('bridge', 'ADD', { id: 'cont1', netns: '/run/netns/c1' }, config);
  assert.is(error.code, 7);
  assert.match(error.msg, /cannot set hairpin mode and promiscuous mode at the same time/);
  assert.match(error.msg, /cannot use IPAM when DisableContainerInterface flag is set/);
  assert.equal(hostState(), before);
});

test('layer 2: up, no address; disableContainerInterface: not even up', () => {
  makeNamespace('c1');
  const result = add(network({ ipam: {}, isGateway: false }));
  assert.equal([result.ips, result.interfaces.length], [undefined, 3]);
  assert.is(link('eth0', 'c1')?.operstate, 'UP');
  assert.equal(addressesOf('eth0', 'c1'), []);
  assert.equal(leases(), {});
  cleanHost();

  makeNamespace('c1');
  add(network({ ipam: undefined, isGateway: false, disableContainerInterface: true }));
  assert.not.ok(link('eth0', 'c1')?.flags.includes('UP'));
});

test('sysctls of the container, the bridge and the port', () => {
  makeNamespace('c1');
  sh('ip netns exec c1 sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.lo.disable_ipv6=1');
  const host = add(network({ ipam: ipam(DUAL) })).interfaces[1]?.name ?? '';
  const inside = (path: string): string => readSysctl(path, 'c1');
  assert.is(inside('net/ipv6/conf/eth0/accept_dad'), '0');
  assert.is(inside('net/ipv4/conf/eth0/arp_notify'), '1');
  assert.is(inside('net/ipv6/conf/eth0/ndisc_notify'), '1');
  for (const name of ['eth0', 'lo']) {
    assert.is(inside(`net/ipv6/conf/${name}/disable_ipv6`), '0');
    assert.is(inside(`net/ipv6/conf/${name}/keep_addr_on_down`), '1');
  }
  assert.equal(
    ['br0', host].map((name) => readSysctl(`net/ipv6/conf/${name}/accept_ra`)),
    ['0', '0'],
  );
  assert.is(readSysctl('net/ipv6/conf/br0/accept_dad'), '0');
  assert.not.match(sh('ip -6 addr show dev br0 scope link'), /tentative/);
});

test('a bridge that was there keeps its own duplicate address detection', () => {
  sh('ip link add br0 type bridge; ip link set br0 up');
  makeNamespace('c1');
  add(network({ ipam: ipam(DUAL) }));
  assert.is(readSysctl('net/ipv6/conf/br0/accept_dad'), '1');
});

test('enabledad keeps duplicate address detection, and ADD waits for it', () => {
  makeNamespace('c1');
  const began = Date.now();
  add(network({ enabledad: true, ipam: ipam(DUAL) }));
  assert.ok(Date.now() - began > 500, 'did not wait');
  assert.is(readSysctl('net/ipv6/conf/eth0/accept_dad', 'c1'), '1');
  assert.is(readSysctl('net/ipv6/conf/eth0/enhanced_dad', 'c1'), '1');
  assert.is(readSysctl('net/ipv6/conf/br0/accept_dad'), '1');
  assert.not.match(sh('ip -n c1 -6 addr show dev eth0 scope global'), /tentative|nodad/);
});

test('enabledad: an address that another container already has fails ADD, and all is taken back', () => {
  makeNamespace('c1');
  makeNamespace('c2');
  add(network({ ipam: ipam(DUAL) }), 'cont1');
  sh('ip -n c1 addr add fd00:88::3/64 dev eth0 nodad');
  const before = hostState();
  const error = fail(
    'bridge',
    'ADD',
    { id: 'cont2', netns: '/run/netns/c2' },
    network({ enabledad: true, ipam: ipam(DUAL) }),
  );
  assert.match(error.msg, /fd00:88::3\/64 of eth0 is in use by another host/);
  assert.equal(hostState(), before);
});

test('dns of the configuration takes the place of what IPAM found, as a whole', () => {
  sh('printf "nameserver 192.0.2.53\\nsearch a.example\\n" > /run/resolv.conf');
  const withResolv = { ipam: ipam(['10.88.0.0/16'], { resolvConf: '/run/resolv.conf' }) };
  makeNamespace('c1');
  assert.equal(add(network(withResolv)).dns, { nameservers: ['192.0.2.53'], search: ['a.example'] });
  cleanHost();
  sh('printf "nameserver 192.0.2.53\\n" > /run/resolv.conf');
  makeNamespace('c1');
  const dns = { nameservers: ['192.0.2.1'], options: ['ndots:2'] };
  assert.equal(add(network({ ...withResolv, dns })).dns, dns);
});

test("the node's defaults: MTU from /etc/weft/weft.json, the network's own wins, a mistake in the file stops ADD", () => {
  makeNamespace('c1');
  sh(`mkdir -p /etc/weft; echo '{"mtu": 1380}' > /etc/weft/weft.json`);
  add(network());
  assert.is(link('eth0', 'c1')?.mtu, 1380);
  sh('ip netns del c1');
  makeNamespace('c1');
  add(network({ mtu: 1390 }));
  assert.is(link('eth0', 'c1')?.mtu, 1390);

  sh(`echo '{"mtu": 10, "bakend": "nftables"}' > /etc/weft/weft.json`);
  makeNamespace('c2');
  const before = hostState();
  const error = fail('bridge', 'ADD', { id: 'cont2', netns: '/run/netns/c2' }, network());
  assert.match(error.msg, /\/etc\/weft\/weft\.json: unknown key "bakend"/);
  assert.equal(hostState(), before);
});

test.run();
