import * as assert from 'uvu/assert';
import { PortRanges } from '../../../../../shared/packetfilter/port-ranges.ts';
import { suite } from '../../../../support/suite.ts';
import { commentOf, isUnmanaged } from '../../../../../shared/packetfilter/compare.ts';
import { parseRule } from '../../../../../shared/packetfilter/iptables/parse.ts';
import { chooseDriver } from '../../../../../shared/packetfilter/select.ts';
import type { Rule, TableState } from '../../../../../shared/packetfilter/ruleset.ts';
import { run, sh, useVariant } from '../../../../support/variants.ts';

const test = suite('searching rules without decoding all of a chain');

test.before(() => {
  for (const variant of ['legacy', 'nft'] as const) {
    useVariant(variant);
    makeList();
  }
});

function makeList(): void {
  sh('iptables -t nat -N LIST');
  const lists: readonly [string, ...string[]][] = [
    ['two', '--dports', '80,443'],
    ['run', '--dports', '8000:8099,70'],
    ['one', '--dports', '81'],
    ['source', '--sports', '80'],
    ['inverted', '!', '--dports', '7'],
    ['x -m multiport --dports 9 -j Y', '--dports', '6'],
    ['multiport', '--dports', '5'],
  ];
  for (const [comment, ...match] of lists) {
    const words = ['-p', 'tcp', '-m', 'comment', '--comment', comment, '-m', 'multiport', ...match];
    run('iptables', '-t', 'nat', '-A', 'LIST', ...words, '-j', 'RETURN');
  }
}

/** The same table, in every way it is read. */
const READERS: Record<string, () => TableState> = {
  'over netlink': () => chooseDriver({ variant: 'nft' }).read('ipv4', 'nat'),
  'out of the legacy table': () => chooseDriver({ variant: 'legacy' }).read('ipv4', 'nat'),
  'through iptables-save': () => chooseDriver({ rawArgs: true }).read('ipv4', 'nat'),
};

for (const [how, read] of Object.entries(READERS)) {
  test(`${how}: by port, without missing one that may match`, () => {
    const state = read();
    const found = (first: number, last = first): (string | undefined)[] =>
      state
        .forPorts('LIST', new PortRanges([{ first, last }]))
        .filter((rule): rule is Rule => !isUnmanaged(rule))
        .map(commentOf)
        .filter((comment) => comment === 'two' || comment === 'run' || comment === 'one');
    assert.equal(found(443), ['two']);
    assert.equal(found(8050, 9000), ['run']);
    assert.equal(found(69, 81), ['two', 'run', 'one']);
    assert.equal(found(1), []);
    // Rules in any other form are returned as well.
    const six = state.forPorts('LIST', new PortRanges([{ first: 6, last: 6 }]));
    assert.ok(six.length >= 3 && six.length < 7, `${six.length} rules`);
    assert.ok(six.some((rule) => !isUnmanaged(rule) && commentOf(rule) === 'x -m multiport --dports 9 -j Y'));
    assert.equal(state.forPorts('NONE', new PortRanges([{ first: 6, last: 6 }])), []);
  });

  test(`${how}: by the rule`, () => {
    const state = read();
    const rule = (ports: string): Rule =>
      parseRule(`-p tcp -m multiport --dports ${ports} -m comment --comment one -j RETURN`) as Rule;
    assert.ok(state.holds('LIST', rule('81')), 'whatever the order of the matches');
    assert.not(state.holds('LIST', rule('82')));
    assert.not(state.holds('NONE', rule('81')));
  });
}

test.run();
