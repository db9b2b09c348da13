/** A search by bytes finds the same rules as decoding every rule. */
import * as assert from 'uvu/assert';
import { sameRule, isUnmanaged } from '../../../../../shared/packetfilter/compare.ts';
import { ruleText } from '../../../../../shared/packetfilter/iptables/render.ts';
import {
  ChainRules,
  KernelRule,
  rulesByChain,
} from '../../../../../shared/packetfilter/iptables-nft/chain-rules.ts';
import { decodeRule } from '../../../../../shared/packetfilter/iptables-nft/decode-rule.ts';
import { multiportRanges } from '../../../../../shared/packetfilter/xtables/matches.ts';
import {
  decodeExpressions,
  jumpTarget,
} from '../../../../../shared/packetfilter/nftables/decode-expressions.ts';
import { encodeTree } from '../../../../../shared/packetfilter/nftables/nlattr.ts';
import { doing, jumpingTo, maybeFor, type Entry } from '../../../../../shared/packetfilter/table.ts';
import { PortRanges } from '../../../../../shared/packetfilter/port-ranges.ts';
import type { PortRange, Rule } from '../../../../../shared/packetfilter/ruleset.ts';
import { suite } from '../../../../support/suite.ts';
import { randomBelow } from '../../../../support/random.ts';
import { clear, useVariant } from '../../../../support/variants.ts';
import { CHAINS, listedExpressions, listingOf, type Listed } from './listed-rules.ts';

const test = suite('rules of a chain, searched by their bytes', { limit: 120 });

let shapes: Buffer[] = [];
test.before(() => {
  useVariant('nft');
  clear('filter', 'nat');
  shapes = listedExpressions();
});

const random = randomBelow(7);
const pick = <T>(from: readonly T[]): T => from[random(from.length)] as T;

/** Another rule of the same shape: with other addresses, ports and names, also ones that make it an unknown rule. */
function varied(expressions: Buffer): Buffer {
  const bytes = Buffer.from(expressions);
  const replace = (from: Buffer, to: Buffer): void => {
    const at = bytes.indexOf(from);
    if (at >= 0 && random(2) === 0) to.copy(bytes, at, 0, from.length);
  };
  replace(Buffer.of(10, 0, 0, 2), Buffer.of(10, 0, pick([0, 9]), pick([2, 3, 80])));
  replace(Buffer.of(10, 88), Buffer.of(10, pick([88, 89])));
  replace(Buffer.from('cont1'), Buffer.from(pick(['cont1', 'cont2', '10.88'])));
  replace(Buffer.from('OTHER\0'), Buffer.from(pick(['CNI-1\0', 'OTHER\0'])));
  const list = bytes.indexOf('multiport\0');
  const byte = list + 24 + random(48);
  if (list >= 0 && byte < bytes.length && random(3) > 0)
    bytes.writeUInt8(pick([0, 1, 2, 80, 144, 255]), byte);
  return bytes;
}

/** Of random length, in datagrams of random length; now and then a rule of another chain is among them. */
function randomChain(): Listed[][] {
  let handle = 1;
  return Array.from({ length: random(6) }, () =>
    Array.from({ length: 1 + random(25) }, () => ({
      chain: random(20) === 0 ? 'ANOTHER' : 'LIST',
      handle: handle++,
      expressions: random(3) === 0 ? pick(shapes) : varied(pick(shapes)),
    })),
  );
}

function read(datagrams: readonly (readonly Listed[])[], most = Number.POSITIVE_INFINITY): ChainRules {
  const open = (): ReturnType<typeof listingOf> => listingOf(datagrams);
  return new ChainRules({ family: 'ipv4', chain: 'LIST', open, jumpingTo: () => most });
}

function handles(entries: Iterable<Entry>): number[] {
  return Array.from(entries, ({ handle }) => Number(handle));
}

const RANDOM_CHAINS = 1500;

test('by a rule, each found once', () => {
  const decoded = shapes.map((list) => decodeRule('ipv4', list)).filter((rule) => rule !== undefined);
  assert.ok(decoded.length >= 30, `${decoded.length} shapes are understood`);
  let found = 0;
  for (let round = 0; round < RANDOM_CHAINS; round++) {
    const chain = randomChain();
    const own = chain.flat().filter((one) => one.chain === 'LIST');
    const all = own.map(({ handle, expressions }) => ({ handle, rule: decodeRule('ipv4', expressions) }));
    const rules = read(chain);
    for (let question = 0; question < 4; question++) {
      const wanted = pick([...decoded, ...all.map(({ rule }) => rule)]) ?? decoded[0];
      if (wanted === undefined) throw new Error('no rule is understood');
      const expected = all.filter(({ rule }) => rule !== undefined && doesTheSame(rule, wanted));
      found += expected.length;
      assert.equal(
        handles(doing(rules, wanted)),
        expected.map(({ handle }) => handle),
        ruleText(wanted),
      );
    }
    assert.equal(
      handles(rules),
      own.map(({ handle }) => handle),
    );
    assert.is(rules.length, own.length);
    assert.ok(
      [...rules].every((entry, at) => [...rules][at] === entry),
      'the same objects again',
    );
  }
  assert.ok(found > RANDOM_CHAINS, `${found} rules were to be found`);
});

function doesTheSame(one: Rule, other: Rule): boolean {
  if (ruleText(one) === ruleText(other)) return true;
  return (other.matches?.length ?? 0) >= 2 && sameRule(one, other);
}

test('by the target of a jump, also with an upper limit of their number', () => {
  let found = 0;
  for (let round = 0; round < RANDOM_CHAINS; round++) {
    const chain = randomChain();
    const to = pick([...CHAINS, 'CNI', 'OTHER-', 'NONE']);
    const expected = chain
      .flat()
      .filter((one) => one.chain === 'LIST' && jumpTarget(one.expressions) === to)
      .map(({ handle }) => handle);
    found += expected.length;
    assert.equal(handles(jumpingTo(read(chain), to)), expected, to);
    assert.equal(handles(jumpingTo(read(chain, expected.length), to)), expected, to);
    assert.equal(handles(jumpingTo(read(chain, expected.length + 3), to)), expected, to);
  }
  assert.ok(found > RANDOM_CHAINS, `${found} rules were to be found`);
});

test('by ports: all rules except those whose multiport match excludes them', () => {
  let excluded = 0;
  for (let round = 0; round < RANDOM_CHAINS; round++) {
    const chain = randomChain();
    const ranges = Array.from({ length: 1 + random(2) }, () => {
      const first = pick([0, 1, 2, 53, 68, 80, 443, 8080, 8085, 65_535, random(65_536)]);
      return { first, last: Math.min(65_535, first + pick([0, 0, 0, 5, 1000])) };
    });
    const ports = new PortRanges(ranges);
    const own = chain.flat().filter((one) => one.chain === 'LIST');
    const expected = own.filter(({ expressions }) => mayBeFor(expressions, ranges));
    excluded += own.length - expected.length;
    const rules = read(chain);
    assert.equal(
      handles(maybeFor(rules, ports)),
      expected.map(({ handle }) => handle),
      JSON.stringify(ranges),
    );
    for (const entry of rules) {
      if (entry.cannotBeFor(ports) && !isUnmanaged(entry.rule))
        assert.not(decodedMayBeFor(entry.rule, ranges));
    }
  }
  assert.ok(excluded > RANDOM_CHAINS, `${excluded} rules were excluded`);
});

/** By every expression of the rule: struct xt_multiport_v1 with flag 1, not inverted. */
function mayBeFor(expressions: Buffer, ports: readonly PortRange[]): boolean {
  return decodeExpressions(expressions).every((expression) => {
    if (expression.kind !== 'match' || expression.name !== 'multiport') return true;
    const { info } = expression;
    const isPlain = info[0] === 1 && (info[1] ?? 0) <= 15 && info[47] === 0;
    return !isPlain || haveCommonPort(multiportRanges(withPlainMarks(info)), ports);
  });
}

/** The kernel takes any mark that is not zero for the beginning of a run. */
function withPlainMarks(info: Buffer): Buffer {
  return Buffer.from(info.map((byte, at) => (at >= 32 && at < 47 && byte !== 0 ? 1 : byte)));
}

function decodedMayBeFor({ matches = [] }: Rule, ports: readonly PortRange[]): boolean {
  return matches.every(
    (match) => match.kind !== 'multiport' || haveCommonPort(match.destinationPorts, ports),
  );
}

/** By a comparison of all pairs. */
function haveCommonPort(some: readonly PortRange[], others: readonly PortRange[]): boolean {
  return some.some((one) => others.some((other) => one.first <= other.last && other.first <= one.last));
}

test('a search that has found all jumps reads no further', () => {
  const expressions = shapes.find((list) => jumpTarget(list) === 'OTHER');
  if (expressions === undefined) throw new Error('a shape jumps there');
  const datagrams = Array.from({ length: 10 }, (_, at) => [{ chain: 'LIST', handle: at + 1, expressions }]);
  const listing = listingOf(datagrams);
  const rules = new ChainRules({ family: 'ipv4', chain: 'LIST', open: () => listing, jumpingTo: () => 3 });
  assert.equal(handles(jumpingTo(rules, 'OTHER')), [1, 2, 3]);
  assert.is(listing.complete, false);
  assert.is(rules.knownLength, 0);
  assert.is(rules.length, 10);
  assert.is(listing.complete, true);
});

test('a chain that changes while it is read: every rule of the last reading, each once, and perhaps some that were deleted meanwhile', () => {
  const [expressions = Buffer.alloc(0)] = shapes;
  const listed = (...numbers: number[]): Listed[] =>
    numbers.map((handle) => ({ chain: 'LIST', handle, expressions }));
  const listing = listingOf(
    [listed(1, 2), listed(3)],
    [listed(1, 2), listed(4, 5)],
    [listed(1), listed(4, 5, 6), listed(7)],
  );
  const rules = new ChainRules({ family: 'ipv4', chain: 'LIST', open: () => listing, jumpingTo: () => 0 });
  const first = rules[Symbol.iterator]();
  assert.equal(
    [first.next(), first.next()].map(({ value }) => (value as { handle: bigint } | undefined)?.handle),
    [1n, 2n],
  );
  const whole = [...rules];
  assert.equal(handles(whole), [1, 2, 3, 4, 5, 6, 7]);
  const rest = [...{ [Symbol.iterator]: () => first }];
  assert.equal(handles(rest), [4, 5, 6, 7]);
  assert.equal(handles(rules), [1, 4, 5, 6, 7]);
  assert.ok(
    rest.every((entry) => whole.includes(entry)),
    'the same objects',
  );
});

test('a rule that was found once is known by its bytes, whatever its counter says, and no other rule is', () => {
  let counted = 0;
  for (const list of shapes) {
    const wanted = decodeRule('ipv4', list);
    if (wanted === undefined) continue;
    assert.not(kernelRule(list).isKnownAs({ ...wanted }), 'never seen');
    kernelRule(list).keepAs(wanted);
    assert.ok(kernelRule(list).isKnownAs(wanted));
    assert.not(kernelRule(Buffer.concat([list, list])).isKnownAs(wanted));
    // NFTA_COUNTER_BYTES and _PACKETS, in any order.
    const counter = list.indexOf('counter\0');
    const values = counter + 12;
    for (let at = 0; at < list.length; at++) {
      const changed = Buffer.from(list);
      changed.writeUInt8(changed.readUInt8(at) ^ 0x41, at);
      const isCounter = at >= values && at < values + 24;
      if (isCounter) counted += 1;
      assert.is(kernelRule(changed).isKnownAs(wanted), isCounter, `byte ${at} of ${ruleText(wanted)}`);
    }
  }
  assert.ok(counted > 24, 'no rule has a counter');
});

function kernelRule(list: Buffer): KernelRule {
  return new KernelRule('ipv4', encodeTree([[4, list]]));
}

test('the rules of all chains in one list, by chain', () => {
  for (let round = 0; round < 100; round++) {
    let handle = 1;
    const chains = ['LIST', 'ANOTHER', 'LAST'].map((chain) =>
      Array.from({ length: random(30) }, () => ({ chain, handle: handle++, expressions: pick(shapes) })),
    );
    const all = chains.flat();
    const cuts = [0, random(all.length + 1), random(all.length + 1), all.length].sort((a, b) => a - b);
    const datagrams = cuts.slice(1).map((to, at) => all.slice(cuts[at], to));
    const lists = rulesByChain(listingOf(datagrams.filter((one) => one.length > 0)));
    assert.is(lists.size, chains.filter((own) => own.length > 0).length);
    for (const [chain, list] of lists) {
      const rules = new ChainRules({ family: 'ipv4', chain, open: () => list, jumpingTo: () => 0 });
      const own = all.filter((one) => one.chain === chain);
      assert.equal(
        handles(rules),
        own.map((one) => one.handle),
      );
    }
  }
});

test('where the kernel counts no jump, no rule is requested', () => {
  const open = (): never => {
    throw new Error('the chain was read');
  };
  const rules = new ChainRules({ family: 'ipv4', chain: 'LIST', open, jumpingTo: () => 0 });
  assert.equal([...jumpingTo(rules, 'OTHER')], []);
  const jump: Rule = { source: { value: '10.0.0.2/32' }, target: { kind: 'jump', chain: 'OTHER' } };
  assert.equal([...doing(rules, jump)], []);
});

test.run();
