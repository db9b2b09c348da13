import * as assert from 'uvu/assert';
import { openNamespace, openOwnNamespace } from '../../../../../shared/kernel/namespace.ts';
import {
  createBridge,
  createBridgeRequest,
  createVeth,
  createVethRequest,
  deleteLink,
  getLinkRequest,
  linkByIndex,
  linkByName,
  linkFrom,
  links,
  namespaceId,
  setLink,
  setLinkRequest,
  type LinkInfo,
} from '../../../../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../../../../shared/kernel/rtnetlink/rtnetlink.ts';
import { readSysctl, setSysctl } from '../../../../../shared/kernel/sysctl.ts';
import { suite } from '../../../../support/suite.ts';
import { ip, kernelError, makeNamespace, run } from '../../../../support/kernel.ts';

const test = suite('rtnetlink links');
const MAC = '02:11:22:33:44:55';
const own = Rtnetlink.open();

function existing(rtnetlink: Rtnetlink, name: string): LinkInfo {
  const link = linkByName(rtnetlink, name);
  if (link === undefined) throw new Error(`no link ${name}`);
  return link;
}

test('loopback is described as ip describes it', () => {
  const lo = existing(own, 'lo');
  assert.equal(
    [lo.index, lo.kind, lo.mac, lo.mtu, lo.up, lo.operState, lo.master, lo.bridge, lo.port],
    [1, undefined, '00:00:00:00:00:00', 65536, true, 'unknown', undefined, undefined, undefined],
  );
  assert.equal(linkByIndex(own, 1), lo);
});

test('a missing link is undefined, not an error', () => {
  assert.is(linkByName(own, 'nowhere'), undefined);
  assert.is(linkByIndex(own, 4711), undefined);
  assert.is(deleteLink(own, 'nowhere'), false);
  assert.is(deleteLink(own, 4711), false);
  kernelError('ENODEV', () => setLink(own, 'nowhere', { up: true }));
});

test('a bridge in one message: MAC, MTU, up', () => {
  createBridge(own, { name: 'br-one', mac: MAC, mtu: 1400, up: true });
  const [seen] = ip('link', 'show', 'br-one');
  assert.equal([seen?.['address'], seen?.['mtu']], [MAC, 1400]);
  assert.ok((seen?.['flags'] as string[]).includes('UP'));
  const bridge = existing(own, 'br-one');
  assert.equal(
    [bridge.index, bridge.kind, bridge.mac, bridge.mtu, bridge.up, bridge.bridge],
    [seen?.['ifindex'], 'bridge', MAC, 1400, true, { vlanFiltering: false }],
  );
});

test('kernel parameters of a link are those under /proc/sys', () => {
  createVeth(own, { name: 'v-sysctl', peer: { name: 'p-sysctl' } });
  const { index } = existing(own, 'v-sysctl');
  const files = { localnet: 'net/ipv4/conf/v-sysctl/route_localnet', ra: 'net/ipv6/conf/v-sysctl/accept_ra' };
  for (const [localnet, ra] of [
    ['0', '1'],
    ['1', '2'],
    ['0', '0'],
  ] as const) {
    setSysctl(files.localnet, localnet);
    setSysctl(files.ra, ra);
    const { routeLocalnet, acceptRa } = existing(own, 'v-sysctl');
    assert.equal([routeLocalnet, acceptRa], [localnet === '1', Number(ra)]);
  }
  assert.is(readSysctl('net/ipv4/conf/v-sysctl/arp_notify'), '0');
  setLink(own, index, { up: true, arpNotify: true });
  assert.is(readSysctl('net/ipv4/conf/v-sysctl/arp_notify'), '1');
  setLink(own, index, { arpNotify: false });
  assert.is(readSysctl('net/ipv4/conf/v-sysctl/arp_notify'), '0');
  assert.ok(existing(own, 'v-sysctl').up);
  deleteLink(own, index);
});

test('a name in use is EEXIST', () => {
  const error = kernelError('EEXIST', () => createBridge(own, { name: 'br-one' }));
  assert.match(error.message, 'RTM_NEWLINK br-one: EEXIST');
  kernelError('EEXIST', () => createVeth(own, { name: 'br-one', peer: { name: 'free' } }));
  assert.is(linkByName(own, 'free'), undefined);
  kernelError('EEXIST', () => createVeth(own, { name: 'free', peer: { name: 'br-one' } }));
  assert.is(linkByName(own, 'free'), undefined);
});

test('a name that is too long is refused with the kernel’s own text', () => {
  const error = kernelError('ERANGE', () => createBridge(own, { name: 'sixteen-letters!' }));
  assert.is(error.detail, 'Attribute failed policy validation');
  assert.type(error.offset, 'number');
});

test('an explicit MAC of a bridge stays when ports with lower ones come and go', () => {
  createBridge(own, { name: 'br-mac', mac: 'fe:ff:ff:ff:ff:01', up: true });
  const { index } = existing(own, 'br-mac');
  createVeth(own, {
    name: 'v-mac',
    mac: '02:00:00:00:00:01',
    master: index,
    up: true,
    peer: { name: 'p-mac' },
  });
  assert.is(existing(own, 'br-mac').mac, 'fe:ff:ff:ff:ff:01');
  deleteLink(own, 'v-mac');
  assert.is(existing(own, 'br-mac').mac, 'fe:ff:ff:ff:ff:01');
});

test('both ends of a veth in one message: names, MACs, MTU, master, up; the peer created in its namespace', () => {
  using namespace = openNamespace(makeNamespace('box'));
  const bridge = existing(own, 'br-one');
  createVeth(own, {
    name: 'veth-box',
    mac: '02:00:00:00:00:01',
    mtu: 1400,
    master: bridge.index,
    up: true,
    peer: { name: 'eth0', mac: '02:00:00:00:00:02', mtu: 1400, namespaceFd: namespace.fd },
  });
  using box = Rtnetlink.openIn(namespace);
  const host = existing(own, 'veth-box');
  const inside = existing(box, 'eth0');
  assert.equal(
    [host.kind, host.mac, host.mtu, host.master, host.up],
    ['veth', '02:00:00:00:00:01', 1400, bridge.index, true],
  );
  assert.equal(
    [inside.kind, inside.mac, inside.mtu, inside.up, inside.master],
    ['veth', '02:00:00:00:00:02', 1400, false, undefined],
  );
  assert.equal([host.peerIndex, inside.peerIndex], [inside.index, host.index]);
  assert.type(host.peerNamespaceId, 'number');
  assert.is(linkByName(own, 'eth0'), undefined);
  assert.equal(host.port, { hairpin: false, isolated: false });
});

test('host end becomes operational once the peer is up', () => {
  assert.is(existing(own, 'veth-box').operState, 'down');
  using box = Rtnetlink.openIn('/run/netns/box');
  setLink(box, 'eth0', { up: true });
  assert.is(existing(own, 'veth-box').operState, 'up');
});

test('a name in use in the peer’s namespace is EEXIST and leaves nothing', () => {
  using namespace = openNamespace('/run/netns/box');
  kernelError('EEXIST', () =>
    createVeth(own, { name: 'veth-two', peer: { name: 'eth0', namespaceFd: namespace.fd } }),
  );
  assert.is(linkByName(own, 'veth-two'), undefined);
});

test('deleting one end deletes the other', () => {
  assert.is(deleteLink(own, 'veth-box'), true);
  using box = Rtnetlink.openIn('/run/netns/box');
  assert.is(linkByName(box, 'eth0'), undefined);
});

test('setLink changes what is given and nothing else', () => {
  createVeth(own, { name: 'v-set', mac: MAC, peer: { name: 'p-set' } });
  const before = existing(own, 'v-set');
  setLink(own, before.index, { mtu: 1300 });
  setLink(own, 'v-set', { up: true, promisc: true });
  setLink(own, 'v-set', { alias: 'weft: a label' });
  const changed = existing(own, 'v-set');
  assert.equal(
    [changed.mtu, changed.up, changed.promiscuity, changed.alias],
    [1300, true, 1, 'weft: a label'],
  );
  assert.is(changed.mac, MAC);
  setLink(own, 'v-set', { promisc: false, alias: '', mac: '02:00:00:00:00:09' });
  const again = existing(own, 'v-set');
  assert.equal(
    [again.up, again.promiscuity, again.alias, again.mac],
    [true, 0, undefined, '02:00:00:00:00:09'],
  );
  setLink(own, 'v-set', { up: false });
  setLink(own, before.index, { name: 'v-new' });
  assert.is(linkByName(own, 'v-set'), undefined);
  assert.equal([existing(own, 'v-new').index, existing(own, 'v-new').up], [before.index, false]);
});

test('a master is joined and left', () => {
  const bridge = existing(own, 'br-one');
  const { index } = existing(own, 'v-new');
  setLink(own, index, { master: bridge.index });
  assert.is(existing(own, 'v-new').master, bridge.index);
  setLink(own, index, { master: 0 });
  assert.is(existing(own, 'v-new').master, undefined);
});

test('lists agree with ip, whole and by master and kind', () => {
  const bridge = existing(own, 'br-one');
  for (const name of ['port-a', 'port-b'])
    createVeth(own, { name, master: bridge.index, peer: { name: `${name}-x` } });
  const names = (found: readonly LinkInfo[]): string[] => found.map(({ name }) => name).sort();
  const byIp = (...args: string[]): unknown[] =>
    ip('link', 'show', ...args)
      .map((link) => link['ifname'])
      .sort();
  assert.equal(names(links(own)), byIp());
  assert.equal(names(links(own, { master: bridge.index })), ['port-a', 'port-b']);
  assert.equal(names(links(own, { kind: 'bridge' })), byIp('type', 'bridge'));
  assert.equal(names(links(own, { kind: 'veth', master: bridge.index })), ['port-a', 'port-b']);
  assert.equal(links(own, { kind: 'no-such-kind' }), []);
  assert.equal(links(own, { master: 4711 }), []);
});

test('a batch creates, gets and changes in one write', () => {
  const [created, asked, up] = own.batch([
    createBridgeRequest({ name: 'br-batch', mac: MAC }),
    getLinkRequest('br-batch'),
    setLinkRequest('br-batch', { up: true }),
  ]);
  assert.equal([created?.error, asked?.error, up?.error], [undefined, undefined, undefined]);
  assert.is(linkFrom(asked?.messages)?.name, 'br-batch');
  assert.is(existing(own, 'br-batch').up, true);
});

test('a batch continues after a refusal, and each request has its own outcome', () => {
  const outcomes = own.batch([
    createBridgeRequest({ name: 'br-batch' }),
    createVethRequest({ name: 'v-batch', peer: { name: 'p-batch' } }),
    getLinkRequest('nowhere'),
    getLinkRequest('v-batch'),
  ]);
  assert.equal(
    outcomes.map(({ error }) => error?.code),
    ['EEXIST', undefined, 'ENODEV', undefined],
  );
  assert.is(outcomes[2]?.error?.syscall, 'RTM_GETLINK nowhere');
  assert.is(linkFrom(outcomes[3]?.messages)?.name, 'v-batch');
  kernelError('EEXIST', () =>
    own.batchOrThrow([getLinkRequest('lo'), createBridgeRequest({ name: 'br-batch' })]),
  );
});

test('a thousand requests fit into one batch', () => {
  const requests = Array.from({ length: 1000 }, () => getLinkRequest('lo'));
  const outcomes = own.batch(requests);
  assert.is(outcomes.length, 1000);
  assert.ok(outcomes.every(({ messages, error }) => error === undefined && linkFrom(messages)?.index === 1));
});

test('links of a namespace are managed from outside through a socket opened in it', () => {
  makeNamespace('far');
  using far = Rtnetlink.openIn('/run/netns/far');
  createBridge(far, { name: 'br-far', up: true });
  assert.is(linkByName(own, 'br-far'), undefined);
  assert.match(run('ip', '-n', 'far', 'link', 'show', 'br-far'), 'br-far');
});

test('VLAN filtering is requested, whether or not this kernel supports it', () => {
  try {
    createBridge(own, { name: 'br-vlan', vlanFiltering: true });
  } catch {
    kernelError('EOPNOTSUPP', () => createBridge(own, { name: 'br-vlan', vlanFiltering: true }));
    assert.is(linkByName(own, 'br-vlan'), undefined);
    return;
  }
  assert.equal(existing(own, 'br-vlan').bridge, { vlanFiltering: true });
});

test('a bridge’s MTU from creation yields to its ports’, one set later stays', () => {
  createBridge(own, { name: 'br-mtu', mtu: 1300 });
  const { index } = existing(own, 'br-mtu');
  createVeth(own, { name: 'v-mtu', mtu: 1400, master: index, peer: { name: 'p-mtu' } });
  assert.is(existing(own, 'br-mtu').mtu, 1400);
  setLink(own, index, { mtu: 1350 });
  deleteLink(own, 'v-mtu');
  assert.is(existing(own, 'br-mtu').mtu, 1350);
});

test('a namespace has no id before a link has its peer there', () => {
  using one = openNamespace(makeNamespace('one'));
  using two = openNamespace(makeNamespace('two'));
  assert.is(namespaceId(own, one), undefined);
  createVeth(own, { name: 'to-one', peer: { name: 'eth0', namespaceFd: one.fd } });
  createVeth(own, { name: 'to-two', peer: { name: 'eth0', namespaceFd: two.fd } });
  assert.type(namespaceId(own, one), 'number');
  assert.is(namespaceId(own, one), linkByName(own, 'to-one')?.peerNamespaceId);
  assert.is(namespaceId(own, two), linkByName(own, 'to-two')?.peerNamespaceId);
  assert.is.not(namespaceId(own, one), namespaceId(own, two));
  assert.match(run('ip', 'netns', 'list'), `one (id: ${namespaceId(own, one)})`);
});

test('the own namespace has no id, and another kind of file is refused', () => {
  using original = openOwnNamespace();
  assert.is(namespaceId(own, original), undefined);
  const error = kernelError('EBADF', () => namespaceId(own, { ...original, fd: 9999 }));
  assert.match(error.message, 'RTM_GETNSID');
});

test.run();
