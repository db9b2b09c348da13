import * as assert from 'uvu/assert';
import {
  ChainRules,
  verdictIn,
  type ChainVerdict,
} from '../../../../../shared/packetfilter/verdict/verdict.ts';
import type { KnownPacket } from '../../../../../shared/packetfilter/verdict/packet.ts';
import { readNft } from '../../../../../shared/packetfilter/nftables/change.ts';
import { randomBelow } from '../../../../support/random.ts';
import { suite } from '../../../../support/suite.ts';
import { rounds, THOROUGH } from '../../../../support/thorough.ts';
import { run } from '../../../../support/variants.ts';
import { INNER, makeWire, OUTER, passed, Sender, type Family } from './wire.ts';

/** What is predicted of a packet, held against what the kernel does with it. */
const test = suite('the verdict of chains of other programs', { limit: 120 });
test.before(makeWire);
test.after(() => senders.forEach((sender) => sender.close()));

type Kind = 'new' | 'established';
const senders: Sender[] = [];
let port = 20_000;

/** A first packet of inner's, or an answer to one that outer got before the chain was there. */
function packet(family: Family, state: Kind): { known: KnownPacket; send: () => void } {
  port += 1;
  const own = port;
  const out = new Sender('inner', family, own);
  const back = new Sender('outer', family, own);
  senders.push(out, back);
  const flow = { family, state, protocol: 'udp', destinationPort: own } as const;
  const link = { inInterface: 'br0', outInterface: 'up0', source: INNER[family], destination: OUTER[family] };
  if (state === 'new') return { known: { ...flow, ...link }, send: () => out.send(OUTER[family], own) };
  out.send(OUTER[family], own);
  const answer = {
    inInterface: 'up0',
    outInterface: 'br0',
    source: OUTER[family],
    destination: INNER[family],
  };
  return { known: { ...flow, ...answer }, send: () => back.send(INNER[family], own) };
}

/** @param rules of table inet t; `chain forward` is the base chain */
function tableOf(policy: string, rules: string): string {
  const base = `chain forward {\ntype filter hook forward priority 0; policy ${policy};`;
  return `table inet t {\n${rules.replaceAll('} chain', '}\nchain').replace('chain forward {', base)}\n}`;
}

function outcome(table: string, family: Family, state: Kind): { predicted: ChainVerdict; arrived: boolean } {
  const { known, send } = packet(family, state);
  run('nft', table);
  try {
    const predicted = readNft((view) => {
      const [base] = view.baseChainsNamed({ family: 'inet', name: 't' }, ['forward']);
      assert.ok(base);
      return base === undefined
        ? 'unclear'
        : verdictIn(new ChainRules(view, base.table), base, known).verdict;
    });
    const before = passed();
    send();
    return { predicted, arrived: passed() > before };
  } finally {
    run('nft', 'delete table inet t');
  }
}

/** What a rule may ask for, and whether that can be predicted at all. */
const CERTAIN = [
  'iifname "br0"',
  'iifname "up0"',
  'iifname != "br0"',
  'iifname "b*"',
  'oifname { "up0", "eth7" }',
  'oifname "docker0"',
  'iifname . oifname { "br0" . "up0", "eth1" . "eth2" }',
  'ip saddr 10.1.0.0/16',
  'ip saddr != 10.1.0.2',
  'ip saddr 10.1.0.0-10.1.0.9',
  'ip saddr { 10.0.0.0/15, 192.168.0.0/16 }',
  'ip daddr { 10.1.0.2, 10.9.9.9 }',
  'ip daddr 10.2.0.0/23',
  'ip6 saddr fd01::/16',
  'ip6 daddr { fd02::/64, fd09::1 }',
  'ip saddr . ip daddr { 10.1.0.2 . 10.2.0.2 }',
  'ip saddr . iifname { 10.1.0.0/24 . "br0" }',
  'ct state new',
  'ct state established,related',
  'ct state { established, related }',
  'ct state invalid',
  'ct state != established',
  'ct status dnat',
  'meta nfproto ipv4',
  'meta protocol ip6',
  'meta l4proto udp',
  'meta l4proto != tcp',
  'udp dport > 1000',
  'udp dport { 53, 20000-40000 }',
  'counter',
];
const UNCERTAIN = ['udp sport > 1000', 'limit rate 1/hour', 'meta mark 7'];
const VERDICTS = ['accept', 'drop', 'return', 'jump sub', 'goto sub', 'reject', 'continue'];

test('each test alone, both families, both directions', () => {
  for (const condition of [...CERTAIN, ...UNCERTAIN]) {
    for (const family of ['ip', 'ip6'] as const) {
      for (const state of ['new', 'established'] as const) {
        const table = tableOf('drop', `chain forward { ${condition} accept; }`);
        const { predicted, arrived } = outcome(table, family, state);
        const what = `${condition}, ${family}, ${state}: predicted ${predicted}, arrived ${arrived}`;
        if (CERTAIN.includes(condition)) assert.is(predicted, arrived ? 'accepted' : 'dropped', what);
        else assert.is.not(predicted, arrived ? 'dropped' : 'accepted', what);
      }
    }
  }
});

test('verdicts of maps and chains within chains', () => {
  const cases: readonly (readonly [rules: string, policy: string, verdict: ChainVerdict])[] = [
    ['chain forward { iifname vmap { "br0" : drop, "up0" : accept }; }', 'accept', 'dropped'],
    [
      'chain sub { accept; } chain forward { iifname vmap { "br0" : jump sub }; drop; }',
      'accept',
      'accepted',
    ],
    ['chain sub { return; } chain forward { jump sub; accept; }', 'drop', 'accepted'],
    ['chain sub { return; } chain forward { goto sub; accept; }', 'drop', 'dropped'],
    ['chain sub { oifname "up0" drop; } chain forward { jump sub; accept; }', 'accept', 'dropped'],
    ['chain forward { return; drop; }', 'accept', 'accepted'],
    ['chain forward { return; accept; }', 'drop', 'dropped'],
    ['chain forward { limit rate 100/second accept; drop; }', 'accept', 'unclear'],
    ['chain forward { udp dport 1 drop; }', 'accept', 'accepted'],
    ['chain forward { udp sport 1 drop; }', 'accept', 'unclear'],
    ['chain forward { meta l4proto vmap { tcp : accept }; }', 'drop', 'dropped'],
    ['chain forward { log prefix "x" counter; reject with icmpx admin-prohibited; }', 'accept', 'dropped'],
    ['chain forward { meta mark set 7; meta mark 7 accept; }', 'drop', 'unclear'],
    ['chain forward { }', 'drop', 'dropped'],
    ['chain forward { }', 'accept', 'accepted'],
  ];
  for (const [rules, policy, verdict] of cases) {
    const { predicted, arrived } = outcome(tableOf(policy, rules), 'ip', 'new');
    assert.is(predicted, verdict, rules);
    if (predicted !== 'unclear') assert.is(arrived, predicted === 'accepted', rules);
  }
});

test('random chains: what is predicted for certain comes to pass', () => {
  const seed = THOROUGH ? Date.now() % 1_000_000_007 : 20_261_123;
  const random = randomBelow(seed);
  const seen = new Map<string, number>();
  for (let round = 0; round < rounds(200, 60); round++) {
    const pick = <T>(list: readonly T[]): T => list[random(list.length)] as T;
    const rule = (verdicts: readonly string[]): string => {
      const conditions = Array.from({ length: random(3) }, () => pick(random(4) === 0 ? UNCERTAIN : CERTAIN));
      const protocols = new Set(conditions.flatMap((condition) => protocolOf(condition) ?? []));
      return `${(protocols.size > 1 ? [] : conditions).join(' ')} ${pick(verdicts)};`;
    };
    const chain = (verdicts: readonly string[]): string =>
      Array.from({ length: random(5) }, () => rule(verdicts)).join(' ');
    const flat = VERDICTS.filter((verdict) => !verdict.includes('sub'));
    const table = tableOf(
      pick(['accept', 'drop']),
      `chain sub { ${chain(flat)} } chain forward { ${chain(VERDICTS)} }`,
    );
    const { predicted, arrived } = outcome(
      table,
      pick(['ip', 'ip6'] as const),
      pick(['new', 'established'] as const),
    );
    if (predicted !== 'unclear')
      assert.is(
        predicted === 'accepted',
        arrived,
        `seed ${seed}, round ${round}: ${predicted}, arrived ${arrived}: ${table}`,
      );
    seen.set(predicted, (seen.get(predicted) ?? 0) + 1);
  }
  for (const verdict of ['accepted', 'dropped', 'unclear'])
    assert.ok((seen.get(verdict) ?? 0) > 0, `${verdict}: ${seen.get(verdict)}`);
});

/** nft(8) refuses a rule about two of them. */
function protocolOf(condition: string): Family | undefined {
  if (/^ip |ipv4/.test(condition)) return 'ip';
  return /ip6/.test(condition) ? 'ip6' : undefined;
}

test.run();
