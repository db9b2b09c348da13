import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { nftRules, takeRules } from '../../../../examples/countdash/footprint.ts';
import {
  xtablesRules,
  acceptInAdminChain,
  removalScript,
  removeFromAdminChain,
  removeSharedChains,
} from '../../../../examples/countdash/shared-rules.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('rules of the host');

const sh = (script: string): string => execFileSync('sh', ['-ec', script], { encoding: 'utf8' });

/** What the reference's plugins leave on a host after the last container is gone. */
const SCAFFOLDING = `
iptables -N CNI-FORWARD
iptables -I FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD
iptables -I CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j NOMAD-ADMIN
iptables -t nat -N CNI-HOSTPORT-SETMARK
iptables -t nat -A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portmap masquerade mark" -j MARK --set-xmark 0x2000/0x2000
iptables -t nat -N CNI-HOSTPORT-MASQ
iptables -t nat -A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
iptables -t nat -A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
iptables -t nat -N CNI-HOSTPORT-DNAT
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
iptables -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT`;

function emptyHost(): void {
  sh('for t in filter nat; do iptables -t $t -F; iptables -t $t -X; done; iptables -P FORWARD ACCEPT');
}

test("makes Nomad's chain and rule once, and takes the rule away", () => {
  emptyHost();
  acceptInAdminChain('iptables', 'weft-demo0', '172.27.90.0/24');
  acceptInAdminChain('iptables', 'weft-demo0', '172.27.90.0/24');
  assert.is(
    sh('iptables -S NOMAD-ADMIN'),
    '-N NOMAD-ADMIN\n-A NOMAD-ADMIN -d 172.27.90.0/24 -o weft-demo0 -j ACCEPT\n',
  );
  removeFromAdminChain('iptables', 'weft-demo0', '172.27.90.0/24');
  removeFromAdminChain('iptables', 'weft-demo0', '172.27.90.0/24');
  assert.is(sh('iptables -S NOMAD-ADMIN'), '-N NOMAD-ADMIN\n');
});

test('takes away every chain that was not there before, down to the last rule', () => {
  emptyHost();
  sh('iptables -A FORWARD -s 192.0.2.1 -j DROP; iptables -P FORWARD DROP; iptables -t nat -N OTHER');
  const before = takeRules();
  acceptInAdminChain('iptables', 'weft-demo0', '172.27.90.0/24');
  sh(SCAFFOLDING);
  removeFromAdminChain('iptables', 'weft-demo0', '172.27.90.0/24');
  assert.not.equal(takeRules(), before);
  removeSharedChains('iptables', before);
  assert.equal(takeRules(), before);
});

test('keeps what was there before', () => {
  emptyHost();
  sh(`iptables -N NOMAD-ADMIN; iptables -A NOMAD-ADMIN -s 192.0.2.9 -j RETURN; ${SCAFFOLDING}`);
  const before = takeRules();
  removeSharedChains('iptables', before);
  assert.equal(takeRules(), before);
});

test("keeps a table's chains when another container has come to use one", () => {
  emptyHost();
  const before = takeRules();
  sh(`iptables -N NOMAD-ADMIN; ${SCAFFOLDING}`);
  sh(
    'iptables -t nat -N CNI-DN-0123456789abcdef01234; iptables -t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 80 -j CNI-DN-0123456789abcdef01234',
  );
  const nat = sh('iptables-save -t nat | grep -v "^#"');
  removeSharedChains('iptables', before);
  assert.is(sh('iptables-save -t nat | grep -v "^#"'), nat);
  assert.equal(
    takeRules().filter((rule) => rule.includes('-t filter')),
    [],
  );
});

test('looking at a table, which creates it, is no change', () => {
  sh('iptables -t mangle -S; iptables -t raw -S; ip6tables -S');
  emptyHost();
  assert.equal(takeRules(), []);
});

test('rules of nft alone are seen, with their table and chain', () => {
  emptyHost();
  sh(
    "nft 'add table inet t; add chain inet t c { type filter hook input priority 0; policy accept; }; add rule inet t c tcp dport 9002 drop'",
  );
  assert.equal(
    takeRules().filter((rule) => rule.includes('9002')),
    ['nft table inet t | chain c | tcp dport 9002 drop'],
  );
  sh('nft delete table inet t');
  assert.equal(takeRules(), []);
});

test('nothing to take away makes no script', () => {
  assert.is(removalScript('nat', ['-t filter -N CNI-FORWARD']), undefined);
  assert.is(removalScript('filter', ['-t filter -N CNI-FORWARD']), '*filter\n-X CNI-FORWARD\nCOMMIT\n');
});

test('tables and chains without rules count as nothing', () => {
  assert.equal(
    xtablesRules(
      '*nat\n:PREROUTING ACCEPT [1:2]\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n:MINE - [0:0]\n-A MINE -j DROP\nCOMMIT\n',
    ),
    ['-t filter -P FORWARD DROP', '-t filter -N MINE', '-t filter -A MINE -j DROP'],
  );
  const text =
    'table ip nat {\n\tchain PREROUTING {\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n\t}\n\n\tchain OUTPUT {\n\t\ttype nat hook output priority -100; policy accept;\n\t}\n}\n';
  assert.equal(nftRules(text), []);
});

test.run();
