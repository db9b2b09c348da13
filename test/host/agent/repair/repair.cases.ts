import { mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:net';
import * as assert from 'uvu/assert';
import { makeClientHost, OUTSIDE, sh } from '../../../e2e/support/client-host.ts';
import { rulesetGeneration } from '../../../../shared/packetfilter/nftables/change.ts';
import { suite } from '../../../support/suite.ts';
import { useVariant, type Variant } from '../../../support/variants.ts';
import {
  addContainer,
  addForeignRules,
  brokenTraffic,
  comparable,
  listenIn,
  missingHere,
  networkList,
  removeContainer,
  rules,
  weftRepair,
  writeNftablesConf,
  type Container,
} from './scene.ts';

function setAddedAt({ list, id }: Container, seconds: number): void {
  utimesSync(`/var/lib/cni/results/${list.name}-${id}-eth0`, seconds, seconds);
}

/** A host with both back ends: two containers on a network of iptables, two on one of nftables, and a policy of the node. @param variant of iptables */
export function repairCases(variant: Variant): void {
  const test = suite(`weft repair, iptables-${variant} beside nftables`, { limit: 60 });
  const containers: Container[] = [];
  const servers: Server[] = [];
  let before = '';
  let oldSave = '';

  test.before(() => {
    useVariant(variant);
    makeClientHost();
    addForeignRules();
    oldSave = sh('for tool in iptables ip6tables; do $tool-save > /run/$tool.save; done; echo saved');
    mkdirSync('/etc/weft', { recursive: true });
    const policy = { isolation: 'network', egress: { deny: ['203.0.113.1'] } };
    writeFileSync('/etc/weft/weft.json', JSON.stringify(policy));
    const lists = [networkList('iptables', 0), networkList('nftables', 1)];
    for (let number = 1; number <= 2; number++)
      for (const list of lists) containers.push(addContainer(list, number));
    // The policy counts as that of the ADDs if the file is a minute older.
    containers.forEach((one) => setAddedAt(one, Date.now() / 1000 + 120));
    before = rules();
    assert.match(before, 'table inet weft_policy {');
    servers.push(...listenIn(OUTSIDE.name, ...containers.map(({ id }) => id)));
    expectTraffic();
  });

  test.after(() => servers.forEach((server) => server.close()));

  /** A new address of IPv6 is not used until it is known to be unique, and a busy machine may answer late. */
  const expectTraffic = (): void => {
    let broken = brokenTraffic(containers);
    for (const end = Date.now() + 10_000; broken.length > 0 && Date.now() < end;)
      broken = brokenTraffic(containers);
    assert.equal(broken, []);
  };

  /** Damages the rules, repairs, and compares with what was there. Connections fail before, if the damage cuts them, and not after. */
  const repairAfter = async (damage: string, cuts = true): Promise<ReturnType<typeof weftRepair>> => {
    sh(damage);
    if (cuts) assert.ok(brokenTraffic(containers).length > 0, 'the damage cuts no connection');
    const damaged = rules();
    const missing = await missingHere();
    assert.is(rules(), damaged, 'a dry run changes nothing');
    const report = weftRepair();
    assert.equal(report.left, []);
    assert.equal(report.problems, []);
    assert.is(report.attachments, containers.length);
    assert.equal(missing, report.missing);
    assert.equal(await missingHere(), []);
    expectTraffic();
    return report;
  };

  test('nothing is missing on an unchanged host', () => {
    for (const option of ['--dry-run', '']) {
      const { attachments, missing, left, problems } = weftRepair(option);
      assert.equal([attachments, missing, left, problems], [containers.length, [], [], []]);
    }
    assert.is(rules(), before);
  });

  test('an old save loaded by iptables-restore: all rules are as before, those of others where they were', async () => {
    assert.is(oldSave, 'saved\n');
    await repairAfter('for tool in iptables ip6tables; do $tool-restore < /run/$tool.save; done');
    assert.is(rules(), before);
  });

  test('single rules and chains: each comes back to its place', async () => {
    await repairAfter(`
      iptables -D CNI-FORWARD 4; iptables -D CNI-FORWARD 1; iptables -t nat -D CNI-HOSTPORT-DNAT 2
      iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
      ip6tables -D FORWARD 1; ip6tables -t nat -D POSTROUTING 3
      nft flush chain inet weft_firewall forward
      nft delete element inet weft_firewall containers4 '{ 10.101.0.3 }'
      nft flush chain inet weft_masquerade $(nft list map inet weft_masquerade ipv4 | sed -n 's/.*10.101.0.3 : goto \\(masq[0-9a-f-]*\\).*/\\1/p')
      nft delete element inet weft_masquerade ipv4 '{ 10.101.0.3 }'
      nft flush chain ip weft_hostports prerouting`);
    assert.is(rules(), before);
  });

  test('forwarding and route_localnet', async () => {
    const report = await repairAfter(
      'sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv4.conf.br0.route_localnet=0',
    );
    assert.equal(report.missing, [
      'net.ipv4.ip_forward is not 1',
      'net.ipv6.conf.all.forwarding is not 1',
      'net.ipv4.conf.br0.route_localnet is not 1',
    ]);
    const values = sh(
      'sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.conf.br0.route_localnet',
    );
    assert.is(values, '1\n1\n1\n');
  });

  test('iptables -F and -t nat -F: all rules of this suite, and nothing else', async () => {
    await repairAfter('for tool in iptables ip6tables; do $tool -F; $tool -t nat -F; done');
    assert.is(rules(), withoutForeign(before));
    // Another program restores its own afterwards: ours stay as they are.
    sh('for tool in iptables ip6tables; do $tool-restore < /run/$tool.save; done');
    weftRepair();
    assert.is(rules(), before);
  });

  test('nft flush ruleset, and what systemctl reload nftables does', async () => {
    sh(
      'for tool in iptables ip6tables; do $tool -F; $tool -t nat -F; $tool -t mangle -F; $tool -X FOREIGN; done; nft delete table inet other',
    );
    weftRepair();
    const alone = rules();
    sh('nft flush ruleset');
    const generation = rulesetGeneration() ?? 0;
    weftRepair();
    // All tables of iptables in one transaction, nf_tables' own in another.
    assert.is(rulesetGeneration(), generation + (variant === 'nft' ? 2 : 1));
    await repairAfter('nft flush ruleset');
    assert.is(comparable(rules()), comparable(alone));
    writeNftablesConf();
    await repairAfter('nft -f /etc/nftables.conf');
    assert.match(rules(), 'table inet filter {');
    sh('nft delete table inet filter');
    assert.is(comparable(rules()), comparable(alone));
  });

  test('a node that was moved to another back end, or variant of iptables, since ADD: complete rules stay the only ones', async () => {
    const unmoved = readFileSync('/etc/weft/weft.json', 'utf8');
    const moveTo = (backend: string): void =>
      writeFileSync('/etc/weft/weft.json', JSON.stringify({ backend }));
    for (const [first, second] of [
      ['iptables', 'nftables'],
      ['nftables', 'iptables'],
    ] as const) {
      moveTo(first);
      const moved = addContainer(networkList(undefined, 3), 1);
      moveTo(second);
      assert.equal(await missingHere(), [], `from ${first} to ${second}`);
      removeContainer(moved);
    }
    useVariant(variant === 'nft' ? 'legacy' : 'nft');
    assert.equal(await missingHere(), []);
    useVariant(variant);
    writeFileSync('/etc/weft/weft.json', unmoved);
  });

  test('a namespace that has lost the address of its container: its rules do not return', () => {
    const [lost] = containers.splice(0, 1);
    assert.ok(lost);
    sh(`ip -n ${lost.id} addr flush dev eth0`);
    sh(
      'nft flush ruleset; for tool in iptables ip6tables; do $tool -F; $tool -t nat -F; $tool -t nat -X; done',
    );
    const { attachments, problems, left } = weftRepair();
    assert.equal([attachments, left], [containers.length, []]);
    assert.match(problems.join('\n'), `container ${lost.id} on network ${lost.list.name}: namespace `);
    assert.not.match(rules(), lost.id);
    removeContainer(lost);
  });

  test('a deleted container has no rules after a repair, nor one whose DEL or ADD has begun', async () => {
    const [gone] = containers.splice(0, 1);
    assert.ok(gone);
    removeContainer(gone);
    const left = rules();
    assert.not.match(left, gone.id);
    await repairAfter(
      'for tool in iptables ip6tables; do $tool -F; $tool -t nat -F; done; nft flush ruleset',
    );
    assert.not.match(rules(), gone.id);
    // As after portmap's DEL, before those of the other plugins.
    const [deleting] = containers;
    assert.ok(deleting);
    setAddedAt(deleting, Date.now() / 1000);
    const { portmap } = { portmap: deleting.list.plugins.at(-1)?.raw };
    const config = { ...portmap, name: deleting.list.name, cniVersion: '1.0.0' };
    writeFileSync('/run/portmap.json', JSON.stringify(config));
    sh(`CNI_COMMAND=DEL CNI_CONTAINERID=${deleting.id} CNI_NETNS=${deleting.attachment.netns} CNI_IFNAME=eth0 \
      CNI_PATH=/opt/cni/bin "${process.env['WEFT_BIN'] ?? 'dist/bin'}/portmap" < /run/portmap.json`);
    assert.equal(weftRepair().missing, []);
    assert.is(readdirSync('/run/weft/calls').length > 0, true);
  });

  test.run();

  /** The rules of this suite in the tables that `iptables -F` and `-t nat -F` empty. */
  function withoutForeign(text: string): string {
    return text
      .split('\n')
      .filter((line) => !/foreign|dummy7|--dport 22 |tcp dport (22|99) |skuid/.test(line))
      .join('\n');
  }
}
