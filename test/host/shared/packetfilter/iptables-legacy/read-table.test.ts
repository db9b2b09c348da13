/** What is read from the kernel without a program must be what iptables-legacy-save prints, rule by rule. */
import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { readLegacyTable } from '../../../../../shared/packetfilter/iptables-legacy/read-table.ts';
import { parseSave } from '../../../../../shared/packetfilter/iptables/save-restore.ts';
import type { Family, TableName } from '../../../../../shared/packetfilter/ruleset.ts';
import { suite } from '../../../../support/suite.ts';
import { FILTER_RULES, NAT_RULES } from '../../../../support/packetfilter/driver-cases.ts';
import { sh } from '../../../../support/variants.ts';

const test = suite('iptables-legacy tables read in process', { limit: 60 });
const TOOL = { ipv4: 'iptables-legacy', ipv6: 'ip6tables-legacy' } as const;

const IPV6_NAT = [
  '-s fd00::/64 -d 2001:db8::1/128 -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00::2]:80',
  '! -d ff00::/8 -m comment --comment "name: \\"net1\\" id: \\"cont1\\"" -j MASQUERADE',
  '-p tcp -j REDIRECT --to-ports 15001',
  '-m owner --uid-owner 0-100 -j RETURN',
  '-m addrtype --dst-type LOCAL -j OTHER',
];
const MORE_FILTER = [
  '-i br+ -j DROP',
  '! -i br0 -o lo -j RETURN',
  '-p udp -m udp --dport 5000:6000 -m comment --comment "a b" -j OTHER',
  '-m comment --comment "CNI firewall plugin rules" -j OTHER',
];

function put(family: Family, table: TableName, lines: readonly string[]): void {
  const input = [
    `*${table}`,
    ':SAMPLE - [0:0]',
    ':OTHER - [0:0]',
    ...lines.map((line) => `-A SAMPLE ${line}`),
    'COMMIT',
    '',
  ];
  execFileSync(`${TOOL[family]}-restore`, ['--noflush'], { input: input.join('\n') });
}

function saved(family: Family, table: TableName): string {
  return execFileSync(`${TOOL[family]}-save`, ['-t', table], { encoding: 'utf8' });
}

const CASES: readonly [Family, TableName, readonly string[]][] = [
  ['ipv4', 'nat', NAT_RULES],
  ['ipv4', 'filter', [...FILTER_RULES, ...MORE_FILTER]],
  ['ipv6', 'nat', IPV6_NAT],
  [
    'ipv6',
    'filter',
    [...MORE_FILTER, '-p tcp -j REJECT --reject-with tcp-reset', '-s fd00::1/128 -j ACCEPT'],
  ],
];

test('a table that nobody uses is not brought into being', () => {
  assert.is(readLegacyTable('ipv4', 'nat'), undefined);
  assert.is(sh('cat /proc/net/ip_tables_names'), '');
});

for (const [family, table, lines] of CASES) {
  test(`${family} ${table}: every chain and every rule, as iptables-save prints them`, () => {
    put(family, table, lines);
    const expected = parseSave(saved(family, table), family, table);
    const read = readLegacyTable(family, table);
    assert.equal([...(read?.chains.keys() ?? [])].sort(), [...(expected?.chains.keys() ?? [])].sort());
    for (const [chain, entries] of expected?.chains ?? []) {
      assert.equal(
        Array.from(read?.chains.get(chain) ?? [], ({ text }) => text),
        Array.from(entries, ({ text }) => text),
        chain,
      );
    }
  });
}

test('what nobody here writes is unmanaged, and its jump is seen', () => {
  put('ipv4', 'filter', [
    '-p esp -j ACCEPT',
    '-m statistic --mode random --probability 0.5 -j OTHER',
    '-p tcp -m tcp --sport 80 -j DROP',
    '-p tcp -g OTHER',
    '-f -j DROP',
  ]);
  const entries = [...(readLegacyTable('ipv4', 'filter')?.chains.get('SAMPLE') ?? [])];
  assert.equal(
    entries.map(({ rule }) => 'unmanaged' in rule),
    [true, true, true, true, true],
  );
  assert.equal(
    entries.map((entry) => entry.jumpsTo('OTHER')),
    [false, true, false, true, false],
  );
});

test.run();
