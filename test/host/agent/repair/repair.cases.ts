import { readdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { sh } from '../../../e2e/support/client-host.ts';
import { suite } from '../../../support/suite.ts';
import { useVariant, type Variant } from '../../../support/variants.ts';
import {
  addContainer,
  addForeignRules,
  networkList,
  removeContainer,
  rules,
  weftRepair,
  writeNftablesConf,
  type Container,
} from './scene.ts';

/** The same on every packet filter. @param backends of the networks, in the order of their numbers */
export function repairCases(
  title: string,
  variant: Variant,
  backends: readonly ('iptables' | 'nftables')[],
): void {
  const test = suite(`weft repair, ${title}`, { limit: 60 });
  const containers: Container[] = [];
  let before = '';
  let oldSave = '';

  test.before(() => {
    useVariant(variant);
    addForeignRules();
    oldSave = sh('for tool in iptables ip6tables; do $tool-save > /run/$tool.save; done; echo saved');
    const lists = backends.map((backend, number) => networkList(backend, number));
    for (let number = 1; number <= 3; number++)
      for (const list of lists) containers.push(addContainer(list, number));
    before = rules();
  });

  /** Damages the rules, repairs, and compares with what was there. */
  const repairAfter = (damage: string): ReturnType<typeof weftRepair> => {
    sh(damage);
    const damaged = rules();
    const dry = weftRepair('--dry-run');
    assert.is(rules(), damaged, 'a dry run changes nothing');
    const report = weftRepair();
    assert.equal(report.left, []);
    assert.equal(report.problems, []);
    assert.is(report.attachments, containers.length);
    assert.equal(dry.missing, report.missing);
    assert.equal(weftRepair().missing, []);
    return report;
  };

  test('nothing is missing on an unchanged host', () => {
    const { attachments, missing, left, problems } = weftRepair();
    assert.equal([attachments, missing, left, problems], [containers.length, [], [], []]);
    assert.is(rules(), before);
  });

  test('an old save loaded by iptables-restore: all rules are as before, those of others where they were', () => {
    assert.is(oldSave, 'saved\n');
    const usesIptables = backends.includes('iptables');
    const report = repairAfter('for tool in iptables ip6tables; do $tool-restore < /run/$tool.save; done');
    assert.is(report.missing.length > 0, usesIptables);
    assert.is(rules(), before);
  });

  test('single rules and chains: each comes back to its place', () => {
    if (backends.includes('iptables')) {
      repairAfter(`
        iptables -D CNI-FORWARD 4; iptables -D CNI-FORWARD 1; iptables -t nat -D CNI-HOSTPORT-DNAT 2
        iptables -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
        ip6tables -D FORWARD 1; ip6tables -t nat -D POSTROUTING 3`);
    } else {
      repairAfter(`
        nft flush chain inet weft_firewall forward
        nft delete element inet weft_firewall containers4 '{ 10.100.0.3 }'
        handle=$(nft -a list chain inet cni_plugins_masquerade masq_checks | grep 10.100.0.3 | sed 's/.*handle //')
        nft delete rule inet cni_plugins_masquerade masq_checks handle $handle
        nft flush chain ip weft_hostports prerouting`);
    }
    assert.is(rules(), before);
  });

  test('forwarding and route_localnet', () => {
    const report = repairAfter(
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

  test('iptables -F and -t nat -F: all rules of this suite, and nothing else', () => {
    repairAfter('for tool in iptables ip6tables; do $tool -F; $tool -t nat -F; done');
    assert.is(rules(), withoutForeign(before));
    // Another program restores its own afterwards: ours stay as they are.
    sh('for tool in iptables ip6tables; do $tool-restore < /run/$tool.save; done');
    weftRepair();
    assert.is(rules(), before);
  });

  test('nft flush ruleset, and what systemctl reload nftables does', () => {
    sh(
      'for tool in iptables ip6tables; do $tool -F; $tool -t nat -F; $tool -t mangle -F; $tool -X FOREIGN; done; nft delete table inet other',
    );
    weftRepair();
    const alone = rules();
    repairAfter('nft flush ruleset');
    assert.is(comparable(rules()), comparable(alone));
    writeNftablesConf();
    repairAfter('nft -f /etc/nftables.conf');
    assert.match(rules(), 'table inet filter {');
    sh('nft delete table inet filter');
    assert.is(comparable(rules()), comparable(alone));
  });

  test('a deleted container has no rules after a repair, nor one whose DEL or ADD has begun', () => {
    const [gone] = containers.splice(0, 1);
    assert.ok(gone);
    removeContainer(gone);
    const left = rules();
    assert.not.match(left, gone.id);
    repairAfter('for tool in iptables ip6tables; do $tool -F; $tool -t nat -F; done; nft flush ruleset');
    assert.not.match(rules(), gone.id);
    // As after portmap's DEL, before those of the other plugins.
    const [deleting] = containers;
    assert.ok(deleting);
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

  /** Without tables and built-in chains that are empty: iptables-nft creates and lists them as it likes. */
  function comparable(text: string): string {
    return text.replaceAll(/^:[A-Z]+ ACCEPT\n/gm, '').replaceAll(/^\*\w+\nCOMMIT\n/gm, '');
  }
}
