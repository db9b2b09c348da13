/**
 * Every shape of rule that the suite can write, written twice into the same kernel: by iptables and by our own encoder.
 * `iptables-save` must print the same, and reading back must give the rule again: a rule is read only if encoding it again gives the kernel's
 * bytes. Versions of iptables differ in them.
 */
import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { decodeRule } from '../../../../../shared/packetfilter/iptables-nft/decode-rule.ts';
import { jumpTarget } from '../../../../../shared/packetfilter/nftables/decode-expressions.ts';
import { compatOf, encodeRule } from '../../../../../shared/packetfilter/iptables-nft/encode-rule.ts';
import {
  isListedAs,
  keepListed,
  listedExpressions,
} from '../../../../../shared/packetfilter/iptables-nft/listed-form.ts';
import { ruleText } from '../../../../../shared/packetfilter/iptables/render.ts';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import { addRule, flushChain, Message } from '../../../../../shared/packetfilter/nftables/messages.ts';
import type { NftChain } from '../../../../../shared/packetfilter/nftables/model.ts';
import { attributeOf } from '../../../../../shared/packetfilter/nftables/nlattr.ts';
import type { Family, Match, Rule, TableName, Target } from '../../../../../shared/packetfilter/ruleset.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('iptables-nft rules', { limit: 30 });

const port = (first: number, last = first): Match => ({ kind: 'port', destinationPort: { first, last } });
const comment = (text: string): Match => ({ kind: 'comment', comment: text });
const jump: Target = { kind: 'jump', chain: 'OTHER' };
const markMatch: Match = { kind: 'mark', value: 0x2000, mask: 0x2000 };

/** Addresses by family, so that each rule is tried in both. */
interface Addresses {
  readonly host: string;
  readonly net: string;
  readonly odd: string;
  readonly multicast: string;
  readonly dnat: string;
}
const ADDRESSES: Record<Family, Addresses> = {
  ipv4: {
    host: '10.1.2.3',
    net: '10.1.0.0/16',
    odd: '10.1.2.128/25',
    multicast: '224.0.0.0/4',
    dnat: '10.1.2.3',
  },
  ipv6: {
    host: 'fd00::2',
    net: 'fd00:1::/64',
    odd: 'fd00:1:2::/47',
    multicast: 'ff00::/8',
    dnat: '[fd00::2]',
  },
};

function natRules({ host, net, odd, multicast, dnat }: Addresses, single: string): Rule[] {
  return [
    { matches: [{ kind: 'addrtype', destinationType: 'LOCAL' }], target: jump },
    { source: { value: single }, matches: [comment('name: "net1" id: "cont1"')], target: jump },
    { destination: { value: net }, matches: [comment('x')], target: { kind: 'accept' } },
    {
      destination: { value: multicast, negated: true },
      matches: [comment('x')],
      target: { kind: 'masquerade' },
    },
    { source: { value: odd }, target: { kind: 'return' } },
    {
      protocol: 'tcp',
      matches: [
        comment('dnat name: "n" id: "c"'),
        {
          kind: 'multiport',
          destinationPorts: [
            { first: 8080, last: 8080 },
            { first: 9000, last: 9100 },
          ],
        },
      ],
      target: jump,
    },
    {
      protocol: 'udp',
      source: { value: single },
      destination: { value: single },
      matches: [port(53)],
      target: { kind: 'mark', value: 0x2000, mask: 0x2000 },
    },
    { matches: [markMatch], target: { kind: 'masquerade' } },
    {
      matches: [comment('CNI portfwd masquerade mark')],
      target: { kind: 'mark', value: 0x2000, mask: 0x2000 },
    },
    { matches: [{ kind: 'mark', value: 1, mask: 0xffffffff, negated: true }], target: { kind: 'return' } },
    { protocol: 'tcp', matches: [port(8080)], target: { kind: 'dnat', to: `${dnat}:80` } },
    { protocol: 'tcp', matches: [port(8000, 8099)], target: { kind: 'dnat', to: `${dnat}:8000-8099` } },
    { protocol: 'tcp', matches: [port(8000, 8099)], target: { kind: 'dnat', to: `${dnat}:9000-9099/8000` } },
    { protocol: 'udp', matches: [port(53)], target: { kind: 'dnat', to: host } },
    { protocol: 'sctp', matches: [port(99)], target: { kind: 'dnat', to: `${dnat}:99` } },
    { protocol: 'tcp', target: { kind: 'redirect', port: 15001 } },
    {
      protocol: 'tcp',
      matches: [{ kind: 'owner', uid: { first: 101, last: 101 } }],
      target: { kind: 'return' },
    },
    { matches: [{ kind: 'owner', uid: { first: 0, last: 100 } }], target: { kind: 'return' } },
    { outInterface: { value: 'lo' }, target: { kind: 'return' } },
    { protocol: 'tcp', matches: [port(1000, 2000)], target: { kind: 'return' } },
  ];
}

function filterRules({ net }: Addresses, single: string): Rule[] {
  return [
    {
      destination: { value: single },
      matches: [{ kind: 'conntrack', states: ['RELATED', 'ESTABLISHED'] }],
      target: { kind: 'accept' },
    },
    { source: { value: single }, target: { kind: 'accept' } },
    { matches: [comment('CNI firewall plugin rules (ingressPolicy: same-bridge)')], target: jump },
    {
      inInterface: { value: 'br0' },
      outInterface: { value: 'br0', negated: true },
      matches: [comment('c')],
      target: jump,
    },
    { inInterface: { value: 'br+' }, target: { kind: 'drop' } },
    {
      inInterface: { value: 'br0' },
      outInterface: { value: 'br1' },
      protocol: 'tcp',
      source: { value: net },
      destination: { value: net },
      target: { kind: 'drop' },
    },
    { protocol: 'tcp', target: { kind: 'reject', with: 'tcp-reset' } },
    {
      protocol: 'tcp',
      matches: [{ kind: 'conntrack', states: ['NEW'] }],
      target: { kind: 'reject', with: 'tcp-reset' },
    },
  ];
}

function cases(family: Family, table: TableName): Rule[] {
  const addresses = ADDRESSES[family];
  const single = family === 'ipv4' ? `${addresses.host}/32` : `${addresses.host}/128`;
  if (table === 'nat') return natRules(addresses, single);
  const unreachable: Rule = {
    protocol: 'udp',
    target: { kind: 'reject', with: family === 'ipv4' ? 'icmp-port-unreachable' : 'icmp6-port-unreachable' },
  };
  return [...filterRules(addresses, single), unreachable];
}

const TOOL = { ipv4: 'iptables-nft', ipv6: 'ip6tables-nft' } as const;

function counted(line: string): string {
  return `[3:180] ${line}`;
}

function run(family: Family, suffix: '-save' | '-restore', args: string[], input = ''): string {
  return execFileSync(`${TOOL[family]}${suffix}`, args, { input, encoding: 'utf8' });
}

function listed(family: Family, table: TableName): string[] {
  return run(family, '-save', ['-t', table])
    .split('\n')
    .filter((line) => line.startsWith('-A SAMPLE'));
}

/** NFTA_RULE_EXPRESSIONS of each rule in the chain. */
function expressions(connection: NftConnection, chain: NftChain): Buffer[] {
  const nodes = [
    [1, chain.table.name],
    [2, chain.name],
  ] as const;
  return connection
    .dump('rules', Message.getRule, chain.table.family, nodes)
    .map((body) => attributeOf(body, 4) ?? Buffer.alloc(0));
}

for (const family of ['ipv4', 'ipv6'] as const) {
  for (const table of ['nat', 'filter'] as const) {
    test(`${family} ${table}: same listing, same rule read back, and written as it was listed`, () => {
      const rules = cases(family, table);
      const chain: NftChain = {
        table: { family: family === 'ipv4' ? 'ip' : 'ip6', name: table },
        name: 'SAMPLE',
      };
      const lines = rules.map((rule) => `-A SAMPLE ${ruleText(rule)}`);
      run(
        family,
        '-restore',
        ['--noflush', '--counters'],
        [`*${table}`, ':SAMPLE - [0:0]', ':OTHER - [0:0]', ...lines.map(counted), 'COMMIT', ''].join('\n'),
      );
      using connection = NftConnection.open();
      const theirs = expressions(connection, chain);
      assert.is(theirs.length, rules.length);
      const theirListing = listed(family, table);
      assert.equal(theirListing, lines);

      connection.commit([
        flushChain(chain),
        ...rules.map((rule) => addRule(chain, required(encodeRule(family, rule)), 'last')),
      ]);
      const ours = expressions(connection, chain);
      rules.forEach((rule, at) => {
        assert.equal(decodeRule(family, required(theirs[at])), rule);
        assert.equal(decodeRule(family, required(ours[at])), rule);
        assert.is(
          jumpTarget(required(theirs[at])),
          rule.target.kind === 'jump' ? rule.target.chain : undefined,
        );
      });
      assert.equal(listed(family, table), theirListing);

      rules.forEach((rule, at) => keepListed(family, rule, required(theirs[at])));
      const kept = rules.map((rule) => ({
        expressions: required(listedExpressions(family, rule)),
        compat: compatOf(rule),
      }));
      connection.commit([flushChain(chain), ...kept.map((body) => addRule(chain, body, 'last'))]);
      const again = expressions(connection, chain);
      assert.equal(
        again.map((list, at) => isListedAs(family, required(rules[at]), list)),
        rules.map(() => true),
      );
      assert.equal(
        again,
        kept.map((body) => body.expressions),
        'as they were, with counters at zero',
      );
    });
  }
}

test('iptables -C and -D work on rules that we wrote', () => {
  const chain: NftChain = { table: { family: 'ip', name: 'nat' }, name: 'SAMPLE' };
  const words = natRules(ADDRESSES.ipv4, '10.1.2.3/32').map((rule) => ruleText(rule));
  for (const text of words) {
    const args = ['-t', 'nat'];
    const rule = (text.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? []).map((word) =>
      word.startsWith('"') ? (JSON.parse(word) as string) : word,
    );
    execFileSync('iptables-nft', [...args, '-C', 'SAMPLE', ...rule]);
    execFileSync('iptables-nft', [...args, '-D', 'SAMPLE', ...rule]);
  }
  using connection = NftConnection.open();
  assert.is(expressions(connection, chain).length, 0);
});

test('a rule that the plugins do not write is unmanaged', () => {
  execFileSync('iptables-nft', [
    '-t',
    'nat',
    '-A',
    'SAMPLE',
    '-p',
    'tcp',
    '-m',
    'statistic',
    '--mode',
    'random',
    '--probability',
    '0.5',
    '-j',
    'OTHER',
  ]);
  execFileSync('iptables-nft', [
    '-t',
    'nat',
    '-A',
    'SAMPLE',
    '-p',
    'tcp',
    '-j',
    'DNAT',
    '--to-destination',
    '10.0.0.1-10.0.0.9:80',
    '--random',
  ]);
  execFileSync('iptables-nft', [
    '-t',
    'nat',
    '-A',
    'SAMPLE',
    '-p',
    'tcp',
    '-m',
    'conntrack',
    '--ctstate',
    'NEW',
    '--ctproto',
    'tcp',
    '-j',
    'ACCEPT',
  ]);
  using connection = NftConnection.open();
  const raw = expressions(connection, { table: { family: 'ip', name: 'nat' }, name: 'SAMPLE' });
  assert.equal(
    raw.map((list) => decodeRule('ipv4', list)),
    [undefined, undefined, undefined],
  );
  assert.equal(raw.map(jumpTarget), ['OTHER', undefined, undefined]);
});

test.run();

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('missing');
  return value;
}
