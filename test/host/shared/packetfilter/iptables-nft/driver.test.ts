/**
 * The driver without iptables against the driver with it: from the same tables, the same changes must give the same
 * `iptables-save`, byte for byte; twice gives what once gave.
 */
import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { createIptablesNftDriver } from '../../../../../shared/packetfilter/iptables-nft/driver.ts';
import { createIptablesDriver } from '../../../../../shared/packetfilter/iptables/driver.ts';
import { parseRule } from '../../../../../shared/packetfilter/iptables/parse.ts';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import type { PacketFilterDriver, Rule, TableChange } from '../../../../../shared/packetfilter/ruleset.ts';
import { suite } from '../../../../support/suite.ts';
import { clear, rules, saved, sh, useVariant } from '../../../../support/variants.ts';

const test = suite('iptables-nft driver over netlink', { limit: 60 });

const withPrograms = createIptablesDriver({ where: 'host', timeoutMs: 10_000 });
const overNetlink = createIptablesNftDriver({
  timeoutMs: 10_000,
  withRawArgs: withPrograms,
  supports: () => true,
});

const rule = (text: string): Rule => parseRule(text) as Rule;

test.before(() => useVariant('nft'));
test.beforeEach(() => {
  sh('nft flush ruleset');
  clear('filter', 'nat');
});

const FOREIGN = [
  'iptables -A FORWARD -p esp -j ACCEPT',
  'iptables -N DOCKER-USER',
  'iptables -I FORWARD 1 -j DOCKER-USER',
  'iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE',
];

const FIRST: TableChange[] = [
  {
    family: 'ipv4',
    table: 'filter',
    ensureChains: ['CNI-FORWARD', 'NOMAD-ADMIN'],
    ensureRules: [
      {
        chain: 'FORWARD',
        rule: rule('-m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD'),
        at: 'first',
      },
      {
        chain: 'CNI-FORWARD',
        rule: rule('-m comment --comment "CNI firewall plugin admin overrides" -j NOMAD-ADMIN'),
        at: 'first',
      },
      {
        chain: 'CNI-FORWARD',
        rule: rule('-d 10.0.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'),
        at: 'last',
      },
      { chain: 'CNI-FORWARD', rule: rule('-s 10.0.0.2/32 -j ACCEPT'), at: 'last' },
    ],
  },
  {
    family: 'ipv4',
    table: 'nat',
    setChains: [
      {
        chain: 'CNI-DN-1',
        rules: [
          rule('-s 10.0.0.0/24 -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x2000/0x2000'),
          rule('-p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.2:8080'),
        ],
      },
      {
        chain: 'CNI-1',
        rules: [
          rule('-d 10.0.0.0/24 -m comment --comment x -j ACCEPT'),
          rule('! -d 224.0.0.0/4 -m comment --comment x -j MASQUERADE'),
        ],
      },
    ],
    ensureChains: ['CNI-HOSTPORT-DNAT'],
    setJumps: [
      { chain: 'POSTROUTING', to: 'CNI-1', rules: [rule('-s 10.0.0.2/32 -m comment --comment x -j CNI-1')] },
      {
        chain: 'CNI-HOSTPORT-DNAT',
        to: 'CNI-DN-1',
        rules: [rule('-p tcp -m comment --comment dnat -m multiport --dports 80 -j CNI-DN-1')],
      },
    ],
    ensureRules: [
      { chain: 'PREROUTING', rule: rule('-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT'), at: 'last' },
    ],
  },
];

const AGAIN: TableChange = {
  family: 'ipv4',
  table: 'nat',
  setChains: [
    { chain: 'CNI-DN-1', rules: [rule('-p udp -m udp --dport 53 -j DNAT --to-destination 10.0.0.3:53')] },
  ],
  setJumps: [
    {
      chain: 'CNI-HOSTPORT-DNAT',
      to: 'CNI-DN-1',
      rules: [rule('-p udp -m comment --comment dnat -m multiport --dports 53 -j CNI-DN-1')],
    },
  ],
};

const AWAY: TableChange[] = [
  { family: 'ipv4', table: 'nat', deleteChains: ['CNI-1', 'CNI-DN-1', 'CNI-NONE'] },
  {
    family: 'ipv4',
    table: 'filter',
    removeRules: [
      { chain: 'CNI-FORWARD', rule: rule('-s 10.0.0.2/32 -j ACCEPT') },
      { chain: 'CNI-FORWARD', match: ({ destination }) => destination?.value === '10.0.0.2/32' },
    ],
  },
];

function run(
  driver: PacketFilterDriver,
  foreign: readonly string[],
  steps: readonly (readonly TableChange[])[],
): string[] {
  sh('nft flush ruleset');
  for (const line of foreign) sh(line);
  return steps.map((changes) => {
    driver.apply(changes);
    return `${saved('filter')}\n${saved('nat')}`;
  });
}

test('the same tables, step by step, among unmanaged rules', () => {
  const steps = [FIRST, FIRST, [AGAIN], AWAY, AWAY, FIRST];
  const expected = run(withPrograms, FOREIGN, steps);
  assert.equal(run(overNetlink, FOREIGN, steps), expected);
});

test('from no table at all', () => {
  const ruleLines = (text: string): string[] =>
    text.split('\n').filter((line) => line.startsWith('-A') || line.endsWith(' -'));
  const expected = run(withPrograms, [], [FIRST]).flatMap(ruleLines);
  assert.equal(run(overNetlink, [], [FIRST]).flatMap(ruleLines), expected);
});

test('IPv6, a displaced head, copies and rules put between foreign ones', () => {
  const change: TableChange = {
    family: 'ipv6',
    table: 'filter',
    ensureChains: ['CNI-FORWARD'],
    ensureRules: [
      { chain: 'FORWARD', rule: rule('-j CNI-FORWARD'), at: 'first' },
      { chain: 'OUTPUT', rule: rule('-j DROP'), at: 'last' },
    ],
  };
  const foreign = [
    'ip6tables -N CNI-FORWARD',
    'ip6tables -A FORWARD -p esp -j ACCEPT',
    'ip6tables -A FORWARD -j CNI-FORWARD',
    'ip6tables -A FORWARD -j CNI-FORWARD',
    ...['DROP', 'ACCEPT', 'DROP'].map((target) => `ip6tables -A OUTPUT -j ${target}`),
  ];
  const listing = (driver: PacketFilterDriver): string[] => {
    run(driver, foreign, [[change]]);
    return rules('filter', 'ipv6');
  };
  assert.equal(listing(overNetlink), listing(withPrograms));
});

test('a second apply commits nothing', () => {
  overNetlink.apply(FIRST);
  using connection = NftConnection.open();
  const generation = connection.generation();
  overNetlink.apply(FIRST);
  assert.is(connection.generation(), generation);
});

test('jumps to a chain that goes are looked for where the change says, before anywhere else', () => {
  for (const at of [1, 2, 3, 4, 5]) sh(`iptables -t nat -N OTHER-${at}`);
  for (const chain of ['LIST', 'GONE']) sh(`iptables -t nat -N ${chain}`);
  for (const at of [1, 2, 3, 4, 5]) sh(`iptables -t nat -A OTHER-${at} -p esp -j ACCEPT`);
  sh('iptables -t nat -A LIST -p tcp -j GONE');
  const { list } = NftConnection.prototype;
  const asked: string[] = [];
  NftConnection.prototype.list = function (...args) {
    asked.push(args[0]);
    return list.apply(this, args);
  };
  try {
    const plan = (): Pick<TableChange, 'deleteChains'> => ({ deleteChains: ['GONE'] });
    overNetlink.apply([{ family: 'ipv4', table: 'nat', reads: ['GONE', 'LIST'], plan }]);
  } finally {
    NftConnection.prototype.list = list;
  }
  assert.equal(asked, ['list rules of ip nat GONE', 'list rules of ip nat LIST']);
  assert.not.match(saved('nat'), 'GONE');
});

test('all tables are one transaction, and one refusal leaves all as they were', () => {
  using connection = NftConnection.open();
  const before = connection.generation();
  const both: TableChange[] = [
    { family: 'ipv4', table: 'nat', ensureChains: ['BOTH'] },
    { family: 'ipv6', table: 'filter', ensureChains: ['BOTH'] },
  ];
  const bad: TableChange = {
    family: 'ipv6',
    table: 'nat',
    ensureRules: [{ chain: 'INPUT', rule: rule('-j NO-SUCH-CHAIN'), at: 'last' }],
  };
  assert.throws(
    () => overNetlink.apply([...both, bad]),
    /refused a change of table nat \(ipv4\) and table filter \(ipv6\) and table nat \(ipv6\): .*ENOENT/,
  );
  assert.is(connection.generation(), before);
  overNetlink.apply(both);
  assert.is(connection.generation(), before + 1);
  assert.match(saved('nat'), ':BOTH');
});

test('is all or nothing', () => {
  overNetlink.apply(FIRST);
  const before = saved('nat');
  const bad: TableChange = {
    ...AGAIN,
    ensureRules: [{ chain: 'INPUT', rule: rule('-j NO-SUCH-CHAIN'), at: 'last' }],
  };
  assert.throws(() => overNetlink.apply([bad]), /refused a change of table nat \(ipv4\)/);
  assert.is(saved('nat'), before);
});

test('rules with an operator’s own words are left to iptables', () => {
  const change: TableChange = {
    family: 'ipv4',
    table: 'nat',
    setChains: [{ chain: 'CNI-W', rules: [rule('-m statistic --mode random --probability 0.5 -j RETURN')] }],
  };
  overNetlink.apply([change]);
  assert.match(saved('nat'), /-A CNI-W -m statistic --mode random/);
});

test('finds one container among thousands without reading the rest', () => {
  const many = Array.from({ length: 2000 }, (_, at) => `10.${Math.floor(at / 250) + 1}.${at % 250}.1/32`);
  const lines = many.flatMap((address) => [
    `-A CNI-FORWARD -d ${address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
    `-A CNI-FORWARD -s ${address} -j ACCEPT`,
  ]);
  execFileSync('iptables-restore', ['--noflush'], {
    input: ['*filter', ':CNI-FORWARD - [0:0]', ...lines, 'COMMIT', ''].join('\n'),
  });
  overNetlink.apply(FIRST);
  assert.is(rules('filter').filter((line) => line.includes('10.0.0.2/32')).length, 2);
  overNetlink.apply(AWAY);
  assert.is(rules('filter').filter((line) => line.includes('10.0.0.2/32')).length, 0);
  assert.is(rules('filter').filter((line) => line.startsWith('-A CNI-FORWARD')).length, 4001);
});

test.run();
