import { createHash } from 'node:crypto';
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
  makeNamespace,
  natRules,
  network,
  sh,
  startHelper,
} from './host.ts';
import { chooseIptables, makeWorld } from './world.ts';

const test = suite('bridge: masquerading', { limit: 40 });
test.beforeEach(() => {
  chooseIptables('nft');
  cleanHost();
});
test.after(() => {
  chooseIptables('nft');
  cleanHost();
});

const c1 = { id: 'cont1', netns: '/run/netns/c1' };
const masq = (own: Record<string, unknown> = {}): Record<string, unknown> =>
  network({ ipMasq: true, ipam: ipam(DUAL), ...own });
const add = (attachment: object, config: object): CniResult =>
  succeed('bridge', 'ADD', attachment as { id: string }, config) as CniResult;

/** What the world and the other container see of c1's traffic. */
async function seen(from = 'c1'): Promise<Record<string, string>> {
  const probe = await startHelper('probe.ts', from);
  const answer = async (address: string): Promise<string> =>
    (await probe.ask(`${address} 1500`)).split(' ')[1] ?? 'none';
  return {
    world4: await answer('192.0.2.2'),
    world6: await answer('2001:db8::2'),
    peer4: await answer('10.88.0.3'),
    peer6: await answer('fd00:88::3'),
  };
}

async function makePeers(config: object): Promise<void> {
  await makeWorld();
  makeNamespace('c1');
  makeNamespace('c2');
  add(c1, config);
  add({ id: 'cont2', netns: '/run/netns/c2' }, config);
  await startHelper('echo.ts', 'c2');
}

const MASQUERADED = { world4: '192.0.2.1', world6: '2001:db8::1', peer4: '10.88.0.2', peer6: 'fd00:88::2' };

for (const variant of ['nft', 'legacy'] as const) {
  test(`iptables-${variant}: the world sees the host, neighbours see the container; names and order of the reference`, async () => {
    chooseIptables(variant);
    await makePeers(masq());
    assert.equal(await seen(), MASQUERADED);

    const hash = createHash('sha512').update('net1cont1').digest('hex').slice(0, 24);
    const chain = `CNI-${hash}`;
    const comment = '-m comment --comment "name: \\"net1\\" id: \\"cont1\\""';
    const rules = (family: 4 | 6): string[] =>
      sh(`${family === 4 ? 'iptables' : 'ip6tables'}-save -t nat`)
        .split('\n')
        .filter((line) => line.startsWith('-A') && line.includes(chain));
    assert.equal(rules(4), [
      `-A POSTROUTING -s 10.88.0.2/32 ${comment} -j ${chain}`,
      `-A ${chain} -d 10.88.0.0/16 ${comment} -j ACCEPT`,
      `-A ${chain} ! -d 224.0.0.0/4 ${comment} -j MASQUERADE`,
    ]);
    assert.equal(rules(6), [
      `-A POSTROUTING -s fd00:88::2/128 ${comment} -j ${chain}`,
      `-A ${chain} -d fd00:88::/64 ${comment} -j ACCEPT`,
      `-A ${chain} ! -d ff00::/8 ${comment} -j MASQUERADE`,
    ]);

    const once = sh('iptables-save -t nat; ip6tables-save -t nat').replaceAll(/^#.*$|\[.*\]/gm, '');
    add(c1, masq());
    assert.is(sh('iptables-save -t nat; ip6tables-save -t nat').replaceAll(/^#.*$|\[.*\]/gm, ''), once);
    succeed('bridge', 'DEL', c1, masq());
    assert.equal([...rules(4), ...rules(6)], []);
  });
}

test('without ipMasq the world sees the container', async () => {
  await makePeers(masq({ ipMasq: false }));
  sh('ip -n world route add 10.88.0.0/16 via 192.0.2.1; ip -n world route add fd00:88::/64 via 2001:db8::1');
  assert.equal(await seen(), { ...MASQUERADED, world4: '10.88.0.2', world6: 'fd00:88::2' });
  assert.equal(natRules(), []);
});

test('nftables: a chain for each interface, to which a map leads; the same traffic', async () => {
  const config = masq({ ipMasqBackend: 'nftables' });
  await makePeers(config);
  assert.equal(await seen(), MASQUERADED);
  assert.equal(natRules(), []);

  const table = (): string => sh('nft list table inet weft_masquerade');
  const lines = table()
    .split('\n')
    .map((line) => line.trim());
  const tag = '8e48f37d5de60467-f37378035343678b';
  const chain = `masq-${tag}`;
  const comment = `comment "${tag}, net: net1, if: eth0, id: cont1"`;
  const at = (title: string, count: number): string[] => {
    const first = lines.indexOf(title) + 1;
    return lines.slice(first, first + count);
  };
  assert.equal(at(`chain ${chain} {`, 3), [
    `ip saddr 10.88.0.2 ip daddr != 10.88.0.0/16 masquerade ${comment}`,
    `ip6 saddr fd00:88::2 ip6 daddr != fd00:88::/64 masquerade ${comment}`,
    '}',
  ]);
  assert.equal(at('chain postrouting {', 6), [
    'type nat hook postrouting priority srcnat; policy accept;',
    'ip daddr 224.0.0.0/4 return',
    'ip6 daddr ff00::/8 return',
    'ip saddr vmap @ipv4',
    'ip6 saddr vmap @ipv6',
    '}',
  ]);
  for (const address of ['10.88.0.2', 'fd00:88::2'])
    assert.match(table(), `${address} : goto ${chain}`, address);

  const once = table();
  add(c1, config);
  assert.is(table(), once);
  sh('nft list ruleset > /run/saved; nft flush ruleset; nft -f /run/saved');
  assert.is(table(), once);
  succeed('bridge', 'DEL', c1, config);
  assert.not.match(table(), /id: cont1|f37378035343678b/);
  assert.match(table(), /id: cont2/);
});

test('nftables: DEL removes elements whose rules another program has deleted', () => {
  makeNamespace('c1');
  const config = masq({ ipMasqBackend: 'nftables' });
  add(c1, config);
  sh('nft flush chain inet weft_masquerade masq-8e48f37d5de60467-f37378035343678b');
  succeed('bridge', 'DEL', c1, config);
  assert.not.match(sh('nft list table inet weft_masquerade'), /f37378035343678b/);
});

test('nftables: an address that a container left behind belongs to its next owner', () => {
  makeNamespace('c1');
  const config = masq({ ipMasqBackend: 'nftables' });
  add(c1, config);
  sh('ip netns del c1; rm -r /run/cni/net1');
  makeNamespace('c2');
  add({ id: 'cont2', netns: '/run/netns/c2' }, config);
  const [, owner] = /10\.88\.0\.2 : goto (\S+)/.exec(sh('nft list map inet weft_masquerade ipv4')) ?? [];
  assert.match(sh(`nft list chain inet weft_masquerade ${owner}`), /id: cont2/);
  succeed('bridge', 'DEL', c1, config);
  assert.match(sh('nft list map inet weft_masquerade ipv4'), `10.88.0.2 : goto ${owner}`);
  assert.not.match(sh('nft list table inet weft_masquerade'), /id: cont1/);
});

test("nftables: the reference's rules count, and are replaced by ADD and removed by DEL", async () => {
  await makeWorld();
  makeNamespace('c1');
  const config = masq({ ipMasqBackend: 'nftables' });
  const prevResult = add(c1, config);
  const own = sh('nft list table inet weft_masquerade');
  const rules = [...own.matchAll(/^.*id: cont1.*$/gm)].map(([line]) => line.trim());
  const byReference = (): void => {
    sh('nft delete table inet weft_masquerade');
    sh(`nft 'table inet cni_plugins_masquerade {
      chain masq_checks {
        ${rules.join('\n')}
      }
      chain postrouting {
        type nat hook postrouting priority srcnat
        ip daddr 224.0.0.0/4 return
        ip6 daddr ff00::/8 return
        goto masq_checks
      }
    }'`);
  };
  byReference();
  succeed('bridge', 'CHECK', c1, { ...config, prevResult });
  const probe = await startHelper('probe.ts', 'c1');
  assert.match(await probe.ask('192.0.2.2 1500'), / 192\.0\.2\.1$/);
  add(c1, config);
  assert.is(sh('nft list table inet weft_masquerade'), own);
  assert.not.match(sh('nft list table inet cni_plugins_masquerade'), /id: cont1/);
  sh('nft delete table inet cni_plugins_masquerade');
  byReference();
  succeed('bridge', 'DEL', c1, config);
  assert.not.match(sh('nft list ruleset'), /id: cont1/);
});

test('nftables: a long comment is cut to what nft takes', () => {
  const long = 'x'.repeat(100);
  makeNamespace('c1');
  const config = masq({ ipMasqBackend: 'nftables' });
  add({ ...c1, id: long }, config);
  const comments = sh('nft list table inet weft_masquerade').matchAll(/comment "([^"]*)"/g);
  assert.equal(
    [...comments].map((match) => match[1]?.length),
    [127, 127],
  );
  succeed('bridge', 'DEL', { ...c1, id: long }, config);
  assert.not.match(sh('nft list table inet weft_masquerade'), /masquerade comment/);
});

test('iptables unless only nft is there; then nft; what is named is taken or refused', () => {
  makeNamespace('c1');
  add(c1, masq());
  assert.is(natRules().length > 0, true);
  cleanHost();

  chooseIptables('none');
  makeNamespace('c1');
  add(c1, masq());
  assert.match(sh('nft list table inet weft_masquerade'), /id: cont1/);
  succeed('bridge', 'DEL', c1, masq());
  assert.not.match(sh('nft list table inet weft_masquerade'), /id: cont1/);

  const before = hostState();
  const error = fail('bridge', 'ADD', c1, masq({ ipMasqBackend: 'iptables' }));
  assert.match(error.msg, /iptables/);
  assert.equal(hostState(), before);
  assert.match(fail('bridge', 'ADD', c1, masq({ ipMasqBackend: 'foo' })).msg, /unknown ipmasq backend "foo"/);
  assert.equal(hostState(), before);
});

test("the node's backend counts where the network names none", () => {
  makeNamespace('c1');
  sh(`mkdir -p /etc/weft; echo '{"backend": "nftables"}' > /etc/weft/weft.json`);
  add(c1, masq());
  assert.match(sh('nft list table inet weft_masquerade'), /id: cont1/);
  sh('rm /etc/weft/weft.json');
  succeed('bridge', 'DEL', c1, masq());
  assert.not.match(sh('nft list table inet weft_masquerade'), /id: cont1/);
});

for (const backend of ['iptables', 'nftables']) {
  test(`${backend}: two interfaces of one container on one network; DEL of either leaves the other masqueraded`, async () => {
    await makeWorld();
    for (const [gone, stays] of [
      ['eth0', 'eth1'],
      ['eth1', 'eth0'],
    ] as const) {
      makeNamespace('c1');
      const config = masq({ ipMasqBackend: backend });
      add({ ...c1, ifname: 'eth0' }, config);
      // A second default route would be the first one's twin.
      add({ ...c1, ifname: 'eth1' }, masq({ ipMasqBackend: backend, ipam: ipam(DUAL, { routes: [] }) }));
      const [left] = addressesOf(stays, 'c1').filter((address) => !address.includes(':'));
      succeed('bridge', 'DEL', { ...c1, ifname: gone }, config);
      succeed('bridge', 'DEL', { ...c1, ifname: gone }, config);
      if (gone === 'eth0') sh('ip -n c1 route add default via 10.88.0.1');
      const probe = await startHelper('probe.ts', 'c1');
      assert.match(await probe.ask('192.0.2.2 1500'), / 192\.0\.2\.1$/, `${gone} gone, ${left} stays`);
      succeed('bridge', 'DEL', { ...c1, ifname: stays }, config);
      assert.equal([...natRules(4), ...natRules(6)], []);
      sh('ip netns del c1');
    }
  });
}

test.run();
