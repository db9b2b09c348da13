import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { operations, type Operation } from '../../../../shared/packetfilter/diff.ts';
import { line } from '../../../../shared/packetfilter/iptables/save-restore.ts';
import { tableAfter } from '../../../../shared/packetfilter/changed-table.ts';
import type { TableChange } from '../../../../shared/packetfilter/ruleset.ts';
import type { Table } from '../../../../shared/packetfilter/table.ts';
import { randomBelow } from '../../../support/random.ts';
import { randomChange, randomTable, rule, table, textsOf, type Chains } from './random-tables.ts';

const test = suite('steps from one table to another');

function steps(chains: Chains, change: Omit<TableChange, 'family' | 'table'>): string[] {
  const before = table(chains);
  return operations(before, tableAfter(before, change)).map(line);
}

const toForward = rule('-m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD');
const toForwardText = '-m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD';
const isolation = rule('-j STAGE-1');

test('nothing to do gives no steps', () => {
  const chains = {
    FORWARD: [toForwardText, '-j LOG --log-level 4'],
    'CNI-FORWARD': ['-s 10.0.0.2/32 -j ACCEPT'],
  };
  assert.equal(
    steps(chains, {
      ensureChains: ['CNI-FORWARD'],
      setChains: [{ chain: 'CNI-FORWARD', rules: [rule('-s 10.0.0.2/32 -j ACCEPT')] }],
      ensureRules: [
        { chain: 'FORWARD', rule: toForward, at: 'first' },
        { chain: 'CNI-FORWARD', rule: rule('-s 10.0.0.2/32 -j ACCEPT'), at: 'last' },
      ],
      setJumps: [{ chain: 'FORWARD', to: 'CNI-FORWARD', rules: [toForward] }],
      removeRules: [
        { chain: 'CNI-FORWARD', rule: rule('-s 10.0.0.3/32 -j ACCEPT') },
        { chain: 'NO-SUCH-CHAIN', match: () => true },
      ],
      deleteChains: ['CNI-DN-x'],
    }),
    [],
  );
});

test('chains are created before rules jump to them', () => {
  assert.equal(
    steps(
      {},
      {
        setJumps: [{ chain: 'FORWARD', to: 'A', rules: [rule('-j A')] }],
        setChains: [{ chain: 'A', rules: [rule('-j DROP')] }],
      },
    ),
    ['-N A', '-A A -j DROP', '-A FORWARD -j A'],
  );
});

test('a displaced first rule moves back to the head, and unmanaged rules stay', () => {
  const chains = { FORWARD: ['-j DOCKER-USER', toForwardText], 'CNI-FORWARD': [], 'DOCKER-USER': [] };
  assert.equal(steps(chains, { ensureRules: [{ chain: 'FORWARD', rule: toForward, at: 'first' }] }), [
    `-D FORWARD ${toForwardText}`,
    `-I FORWARD 1 ${toForwardText}`,
  ]);
  assert.equal(steps(chains, { ensureRules: [{ chain: 'FORWARD', rule: toForward, at: 'prepended' }] }), []);
});

test('only rules that may precede a first rule do', () => {
  const ensureRules = [
    { chain: 'FORWARD', rule: toForward, at: 'first', behind: ['STAGE-1'] },
    { chain: 'FORWARD', rule: isolation, at: 'first' },
  ] as const;
  const both = { 'CNI-FORWARD': [], 'STAGE-1': [], X: [] };
  assert.equal(steps({ ...both, FORWARD: ['-j STAGE-1', toForwardText] }, { ensureRules }), []);
  assert.equal(steps({ ...both, FORWARD: [toForwardText, '-j STAGE-1'] }, { ensureRules }), [
    '-D FORWARD -j STAGE-1',
    '-I FORWARD 1 -j STAGE-1',
  ]);
  assert.equal(steps({ ...both, FORWARD: ['-j X', '-j STAGE-1', toForwardText] }, { ensureRules }), [
    `-D FORWARD -j STAGE-1`,
    `-D FORWARD ${toForwardText}`,
    '-I FORWARD 1 -j STAGE-1',
    `-I FORWARD 2 ${toForwardText}`,
  ]);
  assert.equal(steps(both, { ensureRules }), ['-A FORWARD -j STAGE-1', `-A FORWARD ${toForwardText}`]);
});

test('extra copies are deleted, and the first one keeps its place', () => {
  const chains = { A: ['-j DROP', '-s 10.0.0.1/32 -j ACCEPT', '-j DROP'] };
  assert.equal(steps(chains, { ensureRules: [{ chain: 'A', rule: rule('-j DROP'), at: 'last' }] }), [
    '-D A -j DROP',
    '-D A -j DROP',
    '-I A 1 -j DROP',
  ]);
});

test('all jumps are replaced if one differs', () => {
  const chains = {
    A: ['-p tcp -m multiport --dports 80 -j DN', '-p udp -j OTHER', '-p udp -m multiport --dports 80 -j DN'],
    DN: [],
    OTHER: [],
  };
  const tcp = rule('-p tcp -m multiport --dports 81 -j DN');
  assert.equal(steps(chains, { setJumps: [{ chain: 'A', to: 'DN', rules: [tcp] }] }), [
    '-D A -p tcp -m multiport --dports 80 -j DN',
    '-D A -p udp -m multiport --dports 80 -j DN',
    '-A A -p tcp -m multiport --dports 81 -j DN',
  ]);
});

test('a chain is deleted with every rule that jumps to it, also unmanaged ones', () => {
  const chains = {
    FORWARD: ['-g DN', '-p esp -j DN', '-m comment --comment "about DN" -j ACCEPT', '-j DN2'],
    DN: ['-j DN2'],
    DN2: [],
  };
  assert.equal(steps(chains, { deleteChains: ['DN', 'GONE'] }), [
    '-F DN',
    '-D FORWARD -g DN',
    '-D FORWARD -p esp -j DN',
    '-X DN',
  ]);
  assert.equal(steps(chains, { deleteChains: [(chain) => chain.startsWith('DN')] }), [
    '-F DN',
    '-F DN2',
    '-D FORWARD -g DN',
    '-D FORWARD -p esp -j DN',
    '-D FORWARD -j DN2',
    '-X DN',
    '-X DN2',
  ]);
});

test('the last rule of a chain is deleted, not flushed with a rule that another program may have added meanwhile', () => {
  assert.equal(
    steps({ FORWARD: ['-j ACCEPT'] }, { removeRules: [{ chain: 'FORWARD', rule: rule('-j ACCEPT') }] }),
    ['-D FORWARD -j ACCEPT'],
  );
});

test('rules are removed by predicate, unmanaged ones never', () => {
  const chains = { A: ['-s 10.0.0.1/32 -j ACCEPT', '-p esp -j ACCEPT', '-s 10.0.0.2/32 -j ACCEPT'] };
  assert.equal(steps(chains, { removeRules: [{ chain: 'A', match: () => true }] }), [
    '-D A -s 10.0.0.1/32 -j ACCEPT',
    '-D A -s 10.0.0.2/32 -j ACCEPT',
  ]);
});

/** As iptables carries out the steps: `-D` deletes the first equal rule, `-I` counts from 1. */
function carryOut(before: Table, done: readonly Operation[]): Record<string, string[]> {
  const chains = new Map(
    [...before.chains].map(([chain, entries]) => [chain, Array.from(entries, ({ text }) => text)]),
  );
  const need = (chain: string): string[] => {
    const rules = chains.get(chain);
    if (rules === undefined) throw new Error(`no chain ${chain}`);
    return rules;
  };
  for (const step of done) {
    switch (step.do) {
      case 'createChain':
        if (chains.has(step.chain)) throw new Error(`chain exists: ${step.chain}`);
        chains.set(step.chain, []);
        break;
      case 'flushChain':
        need(step.chain).length = 0;
        break;
      case 'deleteChain':
        if (need(step.chain).length > 0) throw new Error(`chain is not empty: ${step.chain}`);
        chains.delete(step.chain);
        for (const rules of chains.values())
          assert.not(rules.some((text) => text.endsWith(`-j ${step.chain}`)));
        break;
      case 'deleteRule': {
        const at = need(step.chain).indexOf(step.entry.text);
        if (at < 0) throw new Error(`no rule ${step.entry.text}`);
        need(step.chain).splice(at, 1);
        break;
      }
      case 'appendRule':
        need(step.chain).push(step.entry.text);
        break;
      case 'insertRule':
        if (step.index > need(step.chain).length) throw new Error(`no place ${step.index}`);
        need(step.chain).splice(step.index, 0, step.entry.text);
    }
  }
  return Object.fromEntries(chains);
}

test('random changes of random tables: the steps make the wanted table', () => {
  const random = randomBelow(42);
  for (let round = 0; round < 3000; round++) {
    const before = randomTable(random);
    const after = tableAfter(before, randomChange(random));
    const reached = carryOut(before, operations(before, after));
    assert.equal(reached, textsOf(after));
  }
});

test.run();
