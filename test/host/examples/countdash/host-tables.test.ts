import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { takeRules } from '../../../../examples/countdash/footprint.ts';
import { removeSharedTables } from '../../../../examples/countdash/shared-rules.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('nftables tables of the host');

const sh = (script: string): string => execFileSync('sh', ['-ec', script], { encoding: 'utf8' });

/** What our plugins leave on a host after the last container is gone. */
const SCAFFOLDING = `
nft 'add table inet weft_masquerade; add map inet weft_masquerade ipv4 { type ipv4_addr : verdict; }
  add map inet weft_masquerade ipv6 { type ipv6_addr : verdict; }
  add chain inet weft_masquerade postrouting { type nat hook postrouting priority 100; }
  add rule inet weft_masquerade postrouting ip saddr vmap @ipv4'
for f in ip ip6; do nft "add table $f weft_hostports; add map $f weft_hostports ports { type inet_proto . inet_service : verdict; }
  add chain $f weft_hostports prerouting { type nat hook prerouting priority -100; }
  add rule $f weft_hostports prerouting meta l4proto . th dport vmap @ports"; done`;

const tables = (): string[] =>
  sh('nft list tables')
    .split('\n')
    .filter((line) => line !== '');

function emptyHost(): void {
  sh('nft flush ruleset');
}

test('takes away every table that was not there before, and no other', () => {
  emptyHost();
  sh('nft add table inet mine');
  const before = takeRules();
  sh(SCAFFOLDING);
  assert.is(tables().length, 4);
  removeSharedTables(before);
  assert.equal(tables(), ['table inet mine']);
  removeSharedTables(before);
});

test('keeps what was there before', () => {
  emptyHost();
  sh(SCAFFOLDING);
  removeSharedTables(takeRules());
  assert.is(tables().length, 3);
});

test('keeps a table that another container has come to use', () => {
  for (const [use, kept] of [
    ['add element inet weft_masquerade ipv4 { 10.0.0.2 : accept }', 'table inet weft_masquerade'],
    ['add chain ip weft_hostports CNI-DN-0123456789abcdef01234', 'table ip weft_hostports'],
    ['add element ip6 weft_hostports ports { tcp . 80 : accept }', 'table ip6 weft_hostports'],
  ]) {
    emptyHost();
    sh(`${SCAFFOLDING}\nnft '${use}'`);
    removeSharedTables([]);
    assert.equal(tables(), [kept]);
  }
});

test.run();
