import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { fail, succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  addressesOf,
  cacheResult,
  cleanHost,
  DUAL,
  hostState,
  ip,
  ipam,
  leases,
  link,
  makeNamespace,
  natRules,
  network,
  sh,
  startHelper,
} from './host.ts';

const test = suite('bridge DEL', { limit: 40 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const c1 = { id: 'cont1', netns: '/run/netns/c1' };
const full = (own: Record<string, unknown> = {}): Record<string, unknown> =>
  network({ ipMasq: true, macspoofchk: true, ipam: ipam(DUAL), ...own });
const add = (attachment: object, config: object): CniResult =>
  succeed('bridge', 'ADD', attachment as { id: string }, config) as CniResult;
const del = (attachment: object, config: object): unknown =>
  succeed('bridge', 'DEL', attachment as { id: string }, config);

/** After DEL: as after the first ADD of another container, whose traces are taken away by hand. */
function assertNothingLeft(): void {
  assert.equal(ip('link show type veth'), []);
  assert.equal(leases(), {});
  assert.equal([...natRules(4), ...natRules(6)], []);
  assert.not.match(sh('nft list ruleset'), /cont1/);
}

for (const backend of ['iptables', 'nftables']) {
  test(`${backend}: both ends, lease, masquerading and checks are gone; twice is fine; the bridge stays`, () => {
    makeNamespace('c1');
    const config = full({ ipMasqBackend: backend });
    const prevResult = add(c1, config);
    const shared = [link('br0')?.address, addressesOf('br0')];
    del(c1, { ...config, prevResult });
    assertNothingLeft();
    assert.is(link('eth0', 'c1'), undefined);
    del(c1, { ...config, prevResult });
    del(c1, config);
    assertNothingLeft();
    assert.equal([link('br0')?.address, addressesOf('br0')], shared);
  });

  test(`${backend}: without a namespace, with one that is gone, empty, or no namespace at all`, () => {
    const config = full({ ipMasqBackend: backend });
    const ways: [string, string][] = [
      ['', 'ip netns del c1'],
      ['', 'true'],
      ['/run/netns/c1', 'ip netns del c1'],
      ['/run/netns/c1', 'ip netns del c1; ip netns add c1'],
      ['/run/netns/c1', 'ip netns del c1; touch /run/netns/c1'],
      ['/run/netns/c1', 'ip -n c1 link del eth0'],
    ];
    for (const [netns, before] of ways) {
      makeNamespace('c1');
      add(c1, config);
      sh(before);
      del({ ...c1, netns }, config);
      assertNothingLeft();
      sh('ip netns del c1 2>/dev/null || rm -f /run/netns/c1');
    }
  });
}

test('what was never added', () => {
  makeNamespace('c1');
  const before = hostState();
  del(c1, full());
  del({ ...c1, netns: '' }, full());
  del({ ...c1, netns: '/run/netns/nope' }, full());
  assert.equal(hostState(), before);
});

test("the other backend's rules go as well: the configuration may have changed since", () => {
  makeNamespace('c1');
  add(c1, full({ ipMasqBackend: 'nftables' }));
  add(c1, full({ ipMasqBackend: 'iptables' }));
  del(c1, full());
  assertNothingLeft();
});

test('DEL as Nomad does it after a failed ADD: no prevResult, no CNI_ARGS', () => {
  makeNamespace('c1');
  const config = full({ cniVersion: '0.4.0' });
  add({ ...c1, args: 'IgnoreUnknown=true;NOMAD_JOB_ID=x' }, config);
  del({ ...c1, args: '' }, config);
  assertNothingLeft();
});

test('a namespace that a process keeps alive without its name loses the interface, too', async () => {
  makeNamespace('c1');
  const { interfaces } = add(c1, full());
  await startHelper('echo.ts', 'c1');
  sh('ip netns del c1');
  assert.ok(link(interfaces[1]?.name ?? ''));
  del(c1, full());
  assertNothingLeft();
});

test('a namespace that was replaced: the interface of another container there stays', () => {
  makeNamespace('c1');
  makeNamespace('c2');
  add(c1, full());
  add({ id: 'cont2', netns: '/run/netns/c2' }, full());
  sh('umount /run/netns/c1; mount --bind /run/netns/c2 /run/netns/c1');
  const others = addressesOf('eth0', 'c2');
  const rules = sh('nft list table bridge nat');
  assert.match(rules, /cont2/);
  del(c1, full());
  assert.equal(addressesOf('eth0', 'c2'), others);
  assert.equal(Object.values(leases()), ['cont2\r\neth0', 'cont2\r\neth0']);
  assert.match(sh('nft list table bridge nat'), /cont2/);
  assert.not.match(sh('nft list ruleset'), /cont1/);
  assert.is(ip('link show type veth').length, 1);
  sh('umount /run/netns/c1');
});

test('an interface of that name that is no veth, or hangs on another bridge, stays', () => {
  makeNamespace('c1');
  sh(
    'ip link add other type bridge; ip link add v0 type veth peer name eth0 netns c1; ip link set v0 master other',
  );
  del(c1, full());
  assert.ok(link('eth0', 'c1'), 'on another bridge');
  sh('ip -n c1 link del eth0; ip -n c1 link add eth0 type bridge');
  del(c1, full());
  assert.ok(link('eth0', 'c1'), 'no veth');
});

test('two interfaces of one container: DEL of one leaves the other as it is', () => {
  makeNamespace('c1');
  add({ ...c1, ifname: 'eth0' }, full());
  add({ ...c1, ifname: 'net1' }, full({ ipam: ipam(DUAL, { routes: [] }) }));
  const stays = [addressesOf('net1', 'c1'), link('net1', 'c1')?.address];
  del({ ...c1, ifname: 'eth0' }, full());
  assert.equal([addressesOf('net1', 'c1'), link('net1', 'c1')?.address], stays);
  assert.equal(Object.values(leases()), ['cont1\r\nnet1', 'cont1\r\nnet1']);
  assert.match(sh('nft list table bridge nat'), /macspoofchk-cont1-net1/);
  assert.not.match(sh('nft list table bridge nat'), /macspoofchk-cont1-eth0/);
  del({ ...c1, ifname: 'net1' }, full());
  assertNothingLeft();
});

test('a broken pool does not keep DEL from doing all it can', () => {
  makeNamespace('c1');
  add(c1, full());
  del(c1, full({ ipam: { type: 'host-local', subnet: 'nonsense', dataDir: '/run/cni' } }));
  assertNothingLeft();
});

test('the container renamed its interface: the masquerading rules go as well', () => {
  for (const backend of ['iptables', 'nftables']) {
    makeNamespace('c1');
    const config = full({ ipMasqBackend: backend });
    add(c1, config);
    sh('ip -n c1 link set eth0 down; ip -n c1 link set eth0 name other; ip -n c1 link set other up');
    del(c1, config);
    assertNothingLeft();
    sh('ip netns del c1');
  }
});

test('the namespace path is a directory, a FIFO, or a namespace of another kind', () => {
  const replacements = [
    'mkdir /run/netns/c1',
    'mkfifo /run/netns/c1',
    'touch /run/netns/c1; mount --bind /proc/self/ns/uts /run/netns/c1',
    'ln -s c1 /run/netns/c1',
  ];
  for (const replace of replacements) {
    makeNamespace('c1');
    add(c1, full());
    sh(`ip netns del c1; ${replace}`);
    del(c1, full());
    assertNothingLeft();
    sh('umount /run/netns/c1 2>/dev/null || true; rm -rf /run/netns/c1');
  }
});

test("the namespace path is another container's by now: its interface and rules stay", () => {
  makeNamespace('c1');
  makeNamespace('c2');
  const config = network({ ipMasq: true });
  const c2 = { id: 'cont2', netns: '/run/netns/c2' };
  add(c1, config);
  const prevResult = add(c2, config);
  sh('ip netns del c1');
  del({ ...c1, netns: c2.netns }, config);
  succeed('bridge', 'CHECK', c2, { ...config, prevResult });
  assert.is(natRules().length, 4, 'the rules of cont2 only');
  // As the reference creates it, without an alias: the lease identifies it.
  sh(`ip link set dev ${prevResult.interfaces[1]?.name} alias ''`);
  del({ ...c1, netns: c2.netns }, config);
  succeed('bridge', 'CHECK', c2, { ...config, prevResult });
});

/** Each would be rejected by ADD. */
const INVALID: readonly Record<string, unknown>[] = [
  ...[5000, -1, 'x', 1.5, {}].map((vlan) => ({ vlan })),
  ...['1500', -5, 70_000, {}].map((mtu) => ({ mtu })),
  ...['a-name-too-long-', 5, '', 'a/b', 'a\0b', {}].map((bridge) => ({ bridge })),
  ...['x', 5, { mac: 'zz' }, { mac: 5 }, { mac: '01:00:00:00:00:01' }].map((runtimeConfig) => ({
    runtimeConfig,
  })),
  ...['x', 5, { cni: 5 }, { cni: { mac: 'q' } }].map((args) => ({ args })),
  ...['foo', 5, {}].map((ipMasqBackend) => ({ ipMasqBackend })),
  ...['x', 5, [{ id: 9999 }], [{ minID: 5 }], [{ minID: 9, maxID: 5 }]].map((vlanTrunk) => ({ vlanTrunk })),
  ...['x', { nameservers: 'x' }].map((dns) => ({ dns })),
  ...['x', 5, { type: 5 }, { type: 'host-local', dataDir: '/run/cni', subnet: 'x' }].map((broken) => ({
    ipam: broken,
  })),
  { hairpinMode: true, promiscMode: true },
  { disableContainerInterface: true },
  { bridge: 'bridge-of-15-by', vlan: 7 },
  ...[
    'isGateway',
    'isDefaultGateway',
    'forceAddress',
    'allowUplinkOverlap',
    'ipMasq',
    'hairpinMode',
    'promiscMode',
  ].map((key) => ({ [key]: 'yes' })),
  ...['preserveDefaultVlan', 'macspoofchk', 'enabledad', 'disableContainerInterface', 'portIsolation'].map(
    (key) => ({ [key]: 1 }),
  ),
];

for (const [at, change] of INVALID.entries()) {
  test(`a configuration that ADD rejects: ${JSON.stringify(change)}`, () => {
    makeNamespace('c1');
    const config = full({ ipMasqBackend: at % 2 === 0 ? 'iptables' : 'nftables' });
    add(c1, config);
    cacheResult(config, c1);
    const invalid = { ...config, ...change };
    assert.is(fail('bridge', 'ADD', c1, invalid).code, 7);
    del(c1, invalid);
    assertNothingLeft();
  });
}

test.run();
