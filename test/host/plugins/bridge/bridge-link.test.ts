import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { fail, succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  addressesOf,
  cleanHost,
  DUAL,
  hostState,
  ip,
  ipam,
  link,
  makeNamespace,
  network,
  readSysctl,
  sh,
} from './host.ts';

const test = suite('bridge: the bridge itself');
test.beforeEach(cleanHost);
test.after(cleanHost);

const at = (number: number): { id: string; netns: string } => ({
  id: `cont${number}`,
  netns: makeNamespace(`c${number}`),
});
const add = (attachment: object, config: object): CniResult =>
  succeed('bridge', 'ADD', attachment as { id: string }, config) as CniResult;
const assignType = (name: string): string => sh(`cat /sys/class/net/${name}/addr_assign_type`).trim();

test('an existing bridge is used as it is', () => {
  sh('ip link add br0 address 02:11:22:33:44:55 type bridge');
  const before = link('br0');
  add(at(1), network());
  assert.is(link('br0')?.ifindex, before?.ifindex);
  assert.is(link('br0')?.address, '02:11:22:33:44:55');
  assert.ok(link('br0')?.flags.includes('UP'), 'it was down');
});

test('something else of that name is refused, and nothing is made', () => {
  sh('ip link add br0 type veth peer name br0p');
  const before = hostState();
  const error = fail('bridge', 'ADD', at(1), network());
  assert.is(error.msg, '"br0" already exists but is not a bridge');
  assert.match(error.details ?? '', /of kind veth/);
  assert.equal(hostState(), before);
});

test('another IPv4 address on the bridge is in the way; forceAddress replaces it', () => {
  add(at(1), network());
  const before = hostState();
  const other = network({ name: 'net2', ipam: ipam(['10.99.0.0/16']) });
  const second = at(2);
  const error = fail('bridge', 'ADD', second, other);
  assert.is(error.msg, '"br0" already has an IP address different from 10.99.0.1/16');
  assert.match(error.details ?? '', /10\.88\.0\.1\/16/);
  assert.equal(hostState(), before);
  add(second, { ...other, forceAddress: true });
  assert.equal(addressesOf('br0'), ['10.99.0.1/16']);
});

test('the same address with another prefix length is in the way, too', () => {
  sh('ip link add br0 type bridge; ip link set br0 up; ip addr add 10.88.0.1/24 dev br0');
  assert.match(
    fail('bridge', 'ADD', at(1), network()).msg,
    /already has an IP address different from 10\.88\.0\.1\/16/,
  );
  add(at(2), network({ forceAddress: true }));
  assert.equal(addressesOf('br0'), ['10.88.0.1/16']);
});

test('IPv6 networks share a bridge as long as their prefixes do not overlap, also with forceAddress', () => {
  const v6 = (name: string, subnet: string, own = {}): object =>
    network({ name, ipam: ipam([subnet]), ...own });
  add(at(1), v6('net1', 'fd00:88::/64'));
  add(at(2), v6('net2', 'fd00:99::/64', { forceAddress: true }));
  assert.equal(addressesOf('br0'), ['fd00:88::1/64', 'fd00:99::1/64']);
  const overlapping = v6('net3', 'fd00:88::/48');
  const third = at(3);
  assert.match(fail('bridge', 'ADD', third, overlapping).msg, /different from fd00:88::1\/48/);
  add(third, { ...overlapping, forceAddress: true });
  assert.equal(addressesOf('br0'), ['fd00:88::1/48', 'fd00:99::1/64']);
});

test('two IPv4 ranges of one network are two gateways on one bridge', () => {
  const config = network({ ipam: ipam(['10.88.0.0/16', '10.99.0.0/16'], { routes: [] }) });
  add(at(1), config);
  assert.equal(addressesOf('br0'), ['10.88.0.1/16', '10.99.0.1/16']);
  add(at(2), config);
  assert.equal(addressesOf('br0'), ['10.88.0.1/16', '10.99.0.1/16']);
});

test('the MAC of a new bridge is its own and stays through ADD and DEL', () => {
  const first = at(1);
  const result = add(first, network());
  const mac = link('br0')?.address;
  assert.is(assignType('br0'), '3');
  assert.not.ok(ip('link show type veth').some(({ address }) => address === mac));
  add(at(2), network());
  succeed('bridge', 'DEL', first, network());
  succeed('bridge', 'DEL', { id: 'cont2', netns: '/run/netns/c2' }, network());
  assert.is(link('br0')?.address, mac);
  assert.is(result.interfaces[0]?.mac, mac);
});

test('a bridge whose MAC was taken from a port that left gets one, and keeps it', () => {
  sh(
    'ip link add br0 type bridge; ip link set br0 up; ip link add v0 type veth peer name v1; ip link set v0 master br0; ip link del v0',
  );
  assert.is(link('br0')?.address, '00:00:00:00:00:00');
  const first = at(1);
  const result = add(first, network());
  const mac = link('br0')?.address ?? '';
  assert.not.match(mac, /^00:00:00:00:00:00$/);
  assert.is(result.interfaces[0]?.mac, mac);
  assert.is(assignType('br0'), '3');
  succeed('bridge', 'DEL', first, network());
  assert.is(link('br0')?.address, mac);
});

test('a bridge that has the MAC of a port in use keeps it for good', () => {
  sh(
    'ip link add br0 type bridge; ip link set br0 up; ip link add v0 type veth peer name v1; ip link set v0 master br0 up',
  );
  const mac = link('br0')?.address;
  assert.is(link('v0')?.address, mac, "the kernel gave it the port's MAC");
  add(at(1), network());
  assert.is(link('br0')?.address, mac);
  sh('ip link del v0');
  assert.is(link('br0')?.address, mac);
});

test('a layer-2 bridge does not change its MAC with its ports either', () => {
  const config = network({ isGateway: false, ipam: {} });
  sh('ip link add br0 type bridge; ip link set br0 up');
  const mac = link('br0')?.address;
  for (const number of [1, 2, 3]) add(at(number), config);
  succeed('bridge', 'DEL', { id: 'cont1', netns: '/run/netns/c1' }, config);
  assert.is(link('br0')?.address, mac);
});

test('router advertisements: refused on bridge and port, unless an operator wants them on his bridge', () => {
  sh('ip link add br0 type bridge; sysctl -qw net.ipv6.conf.br0.accept_ra=2');
  add(at(1), network({ ipam: ipam(DUAL) }));
  assert.is(readSysctl('net/ipv6/conf/br0/accept_ra'), '2');
});

test('a failed ADD sets a bridge that is not ours down again', () => {
  sh('ip link add br0 address 02:11:22:33:44:55 type bridge; ip addr add 10.1.1.1/24 dev br0');
  const before = hostState();
  assert.match(fail('bridge', 'ADD', at(1), network({ promiscMode: true })).msg, /already has an IP address/);
  assert.equal(hostState(), before);
});

test('a failed ADD puts back the address that forceAddress replaced', () => {
  sh(
    'ip link add br0 address 02:11:22:33:44:55 type bridge; ip link set br0 up; ip addr add 10.1.1.1/24 dev br0',
  );
  const attachment = at(1);
  const before = hostState();
  // Forwarding is the last step, after the addresses were exchanged.
  sh('mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys');
  try {
    assert.match(
      fail('bridge', 'ADD', attachment, network({ forceAddress: true })).msg,
      /failed to enable forwarding: .*EROFS/,
    );
  } finally {
    sh('umount /proc/sys');
  }
  assert.equal(hostState(), before);
});

test.run();
