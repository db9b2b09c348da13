/** Changes of lists that search themselves give the same tables as changes of arrays. */
import * as assert from 'uvu/assert';
import { PortRanges } from '../../../../shared/packetfilter/port-ranges.ts';
import { operations, type Operation } from '../../../../shared/packetfilter/diff.ts';
import { EditedRules, tableAfter } from '../../../../shared/packetfilter/changed-table.ts';
import {
  type Entry,
  NewRule,
  type Rules,
  type Table,
  does,
  stateOf,
} from '../../../../shared/packetfilter/table.ts';
import type { Rule, TableChange } from '../../../../shared/packetfilter/ruleset.ts';
import { suite } from '../../../support/suite.ts';
import { randomBelow } from '../../../support/random.ts';
import { randomChange, randomTable, rule, textsOf, type Chains } from './random-tables.ts';

const test = suite('edited lists of rules');

/** Like a driver's list: no array, entries with handles, and searches that yield a few other rules as well. */
class Numbered implements Rules {
  readonly #entries: readonly Entry[];

  constructor(entries: Iterable<Entry>, number: () => bigint) {
    this.#entries = Array.from(entries, (entry) => ({
      text: entry.text,
      rule: entry.rule,
      jumpsTo: (chain: string) => entry.jumpsTo(chain),
      handle: number(),
    }));
  }

  [Symbol.iterator](): Iterator<Entry> {
    return this.#entries.values();
  }

  mayDo(wanted: Rule): Iterable<Entry> {
    return this.#among((entry) => does(entry, wanted));
  }

  mayJumpTo(chain: string): Iterable<Entry> {
    return this.#among((entry) => entry.jumpsTo(chain));
  }

  mayBeFor(ports: PortRanges): Iterable<Entry> {
    return this.#among((entry) => entry.cannotBeFor?.(ports) !== true);
  }

  #among(picked: (entry: Entry) => boolean): Entry[] {
    return this.#entries.filter((entry, at) => picked(entry) || at % 3 === 0);
  }
}

function numbered(table: Table): Table {
  let last = 0n;
  const chains = new Map(
    [...table.chains].map(([chain, rules]) => [chain, new Numbered(rules, () => (last += 1n))]),
  );
  return { ...table, chains };
}

/** As the kernel carries out the steps: rules are deleted by handle. */
function carryOut(before: Table, steps: readonly Operation[]): Chains {
  const chains = new Map<string, Entry[]>([...before.chains].map(([chain, rules]) => [chain, [...rules]]));
  for (const step of steps) {
    const rules = chains.get(step.chain) ?? [];
    switch (step.do) {
      case 'createChain':
        chains.set(step.chain, []);
        break;
      case 'flushChain':
        rules.length = 0;
        break;
      case 'deleteChain':
        chains.delete(step.chain);
        break;
      case 'deleteRule': {
        const at = rules.findIndex(({ handle }) => handle !== undefined && handle === step.entry.handle);
        assert.ok(at >= 0, `${step.entry.text} is not in ${step.chain}`);
        rules.splice(at, 1);
        break;
      }
      case 'appendRule':
        rules.push(step.entry);
        break;
      case 'insertRule':
        rules.splice(step.index, 0, step.entry);
    }
  }
  return textsOf({ ...before, chains });
}

function changed(table: Table, changes: readonly Omit<TableChange, 'family' | 'table'>[]): Table {
  return changes.reduce<Table>((now, change) => tableAfter(now, change), table);
}

test('random changes, one after the other: the same tables as with arrays, and the steps that make them', () => {
  const random = randomBelow(11);
  for (let round = 0; round < 3000; round++) {
    const before = randomTable(random);
    const changes = Array.from({ length: 1 + random(3) }, () => randomChange(random));
    const expected = textsOf(changed(before, changes));
    const lazy = numbered(before);
    const after = changed(lazy, changes);
    assert.equal(textsOf(after), expected);
    assert.equal(carryOut(lazy, operations(lazy, after)), expected);
  }
});

test('an edited list is edited again without a copy, and searches see the result', () => {
  let last = 0n;
  const texts = ['-j A', '-j DROP', '-j A', '-j ACCEPT'];
  const base = new Numbered(texts.map(entryOf), () => (last += 1n));
  const [first, drop, second] = base;
  const added = [new NewRule(rule('-j A')), new NewRule(rule('-j DROP'))];
  const once = EditedRules.of(base, first === undefined ? [] : [first], added);
  assert.equal(textsIn(once), ['-j DROP', '-j A', '-j ACCEPT', '-j A', '-j DROP']);
  const gone = [drop, second, added[0]].filter((entry) => entry !== undefined);
  const twice = EditedRules.of(once, gone, [new NewRule(rule('-j B'))]);
  assert.equal(textsIn(twice), ['-j ACCEPT', '-j DROP', '-j B']);
  assert.is(twice.base, base);
  const state = stateOf({ family: 'ipv4', table: 'filter', chains: new Map([['X', twice]]) });
  assert.equal(
    ['-j A', '-j B', '-j DROP'].map((text) => state.holds('X', rule(text))),
    [false, true, true],
  );
  assert.equal(
    ['A', 'B'].map((chain) => state.jumps('X', chain).length),
    [0, 1],
  );
  assert.is(state.forPorts('X', new PortRanges([{ first: 1, last: 1 }])).length, 3);
});

function entryOf(text: string): Entry {
  return new NewRule(rule(text));
}

function textsIn(rules: Rules): string[] {
  return Array.from(rules, ({ text }) => text);
}

test.run();
