import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { parseRule } from '../../../../shared/packetfilter/iptables/parse.ts';
import { parseSave } from '../../../../shared/packetfilter/iptables/save-restore.ts';
import { missingFrom } from '../../../../shared/packetfilter/compare.ts';
import type { Rule, TableState } from '../../../../shared/packetfilter/ruleset.ts';
import { stateOf } from '../../../../shared/packetfilter/table.ts';

const test = suite('what is missing from a table');

function state(...lines: string[]): TableState {
  const table = parseSave(['*nat', ...lines, 'COMMIT'].join('\n'), 'ipv4', 'nat');
  if (table === undefined) throw new Error('unreadable');
  return stateOf(table);
}

function rule(text: string): Rule {
  return parseRule(text) as Rule;
}

test('names chains and rules, each with its place', () => {
  const change = {
    ensureChains: ['A'],
    setChains: [{ chain: 'B', rules: [rule('-j DROP'), rule('-p tcp -j ACCEPT')] }],
    setJumps: [{ chain: 'PREROUTING', to: 'B', rules: [rule('-p tcp -j B')] }],
    ensureRules: [{ chain: 'OUTPUT', rule: rule('-j A'), at: 'first' as const }],
  };
  assert.equal(missingFrom(state(':PREROUTING ACCEPT [0:0]', ':B - [0:0]', '-A B -j DROP'), change), [
    'chain A is missing from table nat (ipv4)',
    'rule is missing from chain B of table nat (ipv4): -p tcp -j ACCEPT',
    'rule is missing from chain PREROUTING of table nat (ipv4): -p tcp -j B',
    'rule is missing from chain OUTPUT of table nat (ipv4): -j A',
  ]);
});

test('order, further rules and further copies do not matter', () => {
  const table = state(
    ':B - [0:0]',
    ':X - [0:0]',
    '-A B -p esp -j DROP',
    '-A B -j X',
    '-A B -j DROP',
    '-A B -j DROP',
  );
  const rules = [rule('-j DROP'), rule('-j X')];
  assert.equal(missingFrom(table, { setChains: [{ chain: 'B', rules }] }), []);
  assert.equal(missingFrom(table, { ensureRules: [{ chain: 'B', rule: rule('-j DROP'), at: 'first' }] }), []);
});

test('a rule with raw arguments counts if everything else is equal, and only then', () => {
  const table = state(
    ':B - [0:0]',
    ':X - [0:0]',
    '-A B -p tcp -m set --match-set a src -m multiport --dports 80 -j X',
  );
  const wanted = (text: string) =>
    missingFrom(table, { setJumps: [{ chain: 'B', to: 'X', rules: [rule(text)] }] });
  assert.equal(wanted('-p tcp -m multiport --dports 80 -m set --match-set a src,src -j X'), []);
  assert.is(wanted('-p tcp -m multiport --dports 81 -m set --match-set a src -j X').length, 1);
  assert.is(wanted('-p tcp -m multiport --dports 80 -j X').length, 1, 'a rule without words is exact');
});

test.run();
