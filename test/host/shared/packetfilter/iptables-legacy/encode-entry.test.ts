/** Our bytes for a rule are those that iptables-legacy itself puts into the kernel, and they read back as the same rule. */
import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { ruleText } from '../../../../../shared/packetfilter/iptables/render.ts';
import { BlobView, LAYOUTS } from '../../../../../shared/packetfilter/iptables-legacy/layout.ts';
import { encodeEntry } from '../../../../../shared/packetfilter/iptables-legacy/encode-entry.ts';
import { LegacyRule } from '../../../../../shared/packetfilter/iptables-legacy/legacy-rule.ts';
import { readLegacyTable } from '../../../../../shared/packetfilter/iptables-legacy/read-table.ts';
import type { Family, Match, Rule, TableName } from '../../../../../shared/packetfilter/ruleset.ts';
import { Random } from '../../../../support/random.ts';
import { suite } from '../../../../support/suite.ts';
import { randomRule } from './random-rules.ts';

const test = suite('rules as bytes of iptables-legacy', { limit: 60 });

const TABLES: readonly [Family, TableName][] = [
  ['ipv4', 'filter'],
  ['ipv4', 'nat'],
  ['ipv6', 'filter'],
  ['ipv6', 'nat'],
];
const OTHER_AT = 4096;

/** The rule of an entry that stands alone, whose jump leads to a chain OTHER. */
function decoded(family: Family, bytes: Buffer, rule: Rule): unknown {
  const entry = Buffer.from(bytes);
  if (rule.target.kind === 'jump') {
    entry.writeInt32LE(OTHER_AT, entry.readUInt16LE(LAYOUTS[family].targetOffset) + 32);
  }
  const view = new BlobView(family, entry, new Map([[OTHER_AT, 'OTHER']]));
  return new LegacyRule(view, 0, entry.length, 0).rule;
}

for (const [family, table] of TABLES) {
  test(`${family} ${table}: a thousand random rules read back as they were written`, () => {
    const random = new Random(20_26);
    for (let count = 0; count < 1_000; count++) {
      const rule = randomRule(random, family, table, ['OTHER']);
      const bytes = encodeEntry(family, rule);
      assert.ok(bytes, ruleText(rule));
      assert.equal(decoded(family, bytes, rule), rule);
    }
  });

  test(`${family} ${table}: the same bytes as iptables-legacy-restore gives the kernel`, () => {
    const random = new Random(7);
    const rules = Array.from({ length: 250 }, () => randomRule(random, family, table, ['OTHER']));
    const input = [
      `*${table}`,
      ':SAMPLE - [0:0]',
      ':OTHER - [0:0]',
      ...rules.map((rule) => `-A SAMPLE ${ruleText(rule)}`),
    ];
    execFileSync(family === 'ipv4' ? 'iptables-legacy-restore' : 'ip6tables-legacy-restore', ['--noflush'], {
      input: `${input.join('\n')}\nCOMMIT\n`,
    });
    const entries = readLegacyTable(family, table)?.chains.get('SAMPLE') ?? [];
    assert.is(entries.length, rules.length);
    for (const [at, entry] of entries.entries()) {
      const rule = rules[at];
      assert.ok(entry instanceof LegacyRule && rule !== undefined);
      const bytes = encodeEntry(family, rule) ?? Buffer.alloc(0);
      assert.is(asWritten(family, entry.bytes, rule), asWritten(family, bytes, rule), ruleText(rule));
    }
  });
}

/** Without what only the kernel knows: by which hooks a packet may come (`comefrom`), counters, and where a chain is. */
function asWritten(family: Family, bytes: Buffer, rule: Rule): string {
  const own = Buffer.from(bytes);
  const { matches, targetOffset } = LAYOUTS[family];
  own.fill(0, matches - 20, matches);
  if (rule.target.kind === 'jump') own.fill(0, own.readUInt16LE(targetOffset) + 32);
  return own.toString('hex');
}

const accept: Rule = { target: { kind: 'accept' } };
const port: Match = { kind: 'port', destinationPort: { first: 80, last: 80 } };
const LEFT: Record<string, Rule> = {
  'words of an operator': { ...accept, matches: [{ kind: 'rawArgs', args: ['-m', 'limit'] }] },
  'an address of the other family': { ...accept, source: { value: 'fd00::1/128' } },
  'no address': { ...accept, source: { value: '10.0.0.300/32' } },
  'every address': { ...accept, source: { value: '0.0.0.0/0', negated: true } },
  'a long name of an interface': { ...accept, inInterface: { value: 'abcdefghijklmnop' } },
  'no name of an interface': { ...accept, inInterface: { value: '' } },
  'a port without a protocol': { ...accept, matches: [port] },
  'a port of a protocol without ports': { ...accept, protocol: 'icmp', matches: [port] },
  'a range upside down': {
    ...accept,
    protocol: 'tcp',
    matches: [{ kind: 'port', destinationPort: { first: 2, last: 1 } }],
  },
  'too many ports': {
    ...accept,
    protocol: 'tcp',
    matches: [
      {
        kind: 'multiport',
        destinationPorts: Array.from({ length: 8 }, (_, at) => ({ first: at, last: at + 9 })),
      },
    ],
  },
  'no state': { ...accept, matches: [{ kind: 'conntrack', states: [] }] },
  'a long comment': { ...accept, matches: [{ kind: 'comment', comment: 'ä'.repeat(128) }] },
  'a destination without an address': { protocol: 'tcp', target: { kind: 'dnat', to: ':80' } },
  'a destination of the other family': { protocol: 'tcp', target: { kind: 'dnat', to: '[fd00::1]:80' } },
  'a destination port without a protocol': { target: { kind: 'dnat', to: '10.0.0.2:80' } },
  'a destination port too high': { protocol: 'tcp', target: { kind: 'dnat', to: '10.0.0.2:65536' } },
  'a redirection without a protocol': { target: { kind: 'redirect', port: 80 } },
  'a rejection of the other family': { target: { kind: 'reject', with: 'icmp6-port-unreachable' } },
};

for (const [what, rule] of Object.entries(LEFT)) {
  test(`left to iptables: ${what}`, () => {
    assert.is(encodeEntry('ipv4', rule), undefined);
  });
}

test.run();
