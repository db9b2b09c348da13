import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { missingFrom } from '../../../../shared/packetfilter/compare.ts';
import type { TableChange } from '../../../../shared/packetfilter/ruleset.ts';
import {
  chooseDriver,
  driversWithRules,
  missingEverywhere,
  otherDrivers,
  removeEverywhere,
} from '../../../../shared/packetfilter/select.ts';
import {
  clear,
  removePrograms,
  rules,
  sh,
  useVariant,
  VARIANTS,
  type Variant,
} from '../../../support/variants.ts';

const test = suite('rules in the variant of iptables that was the host’s before');

const CHANGE: TableChange = {
  family: 'ipv4',
  table: 'nat',
  setChains: [
    { chain: 'CNI-X', rules: [{ source: { value: '10.0.0.2/32' }, target: { kind: 'masquerade' } }] },
  ],
  setJumps: [{ chain: 'POSTROUTING', to: 'CNI-X', rules: [{ target: { kind: 'jump', chain: 'CNI-X' } }] }],
};
const REMOVAL: TableChange = { family: 'ipv4', table: 'nat', deleteChains: ['CNI-X'] };

const OTHER = { nft: 'legacy', legacy: 'nft' } as const;

function warn(line: string): never {
  throw new Error(line);
}

function missing(): string | undefined {
  return missingEverywhere('ipv4', (driver) => missingFrom(driver.read('ipv4', 'nat'), CHANGE)[0]);
}

function rulesIn(variant: Variant): string[] {
  useVariant(variant);
  return rules('nat').filter((line) => line.includes('CNI-X'));
}

test('a host without tables of the other variant has one driver, and the search creates no table', () => {
  useVariant('nft');
  assert.is(driversWithRules().length, 1);
  useVariant('legacy');
  assert.is(driversWithRules().length, 1);
  assert.is(sh('nft list tables'), '');
});

for (const variant of VARIANTS) {
  test(`rules made with ${variant} are found and removed after a switch to ${OTHER[variant]}`, () => {
    useVariant(variant);
    chooseDriver().apply([CHANGE]);
    useVariant(OTHER[variant]);
    assert.equal(
      otherDrivers().map(({ name }) => name),
      [`iptables-${variant}`],
    );
    assert.is(missing(), undefined);
    removeEverywhere([REMOVAL], warn);
    assert.match(missing() ?? '', /CNI-X/);
    assert.equal(rulesIn(variant), []);
    assert.equal(rulesIn(OTHER[variant]), []);
  });
}

test('without programs, rules of the nf_tables variant are removed, and tables of iptables-legacy are left alone', () => {
  for (const variant of VARIANTS) {
    useVariant(variant);
    clear('nat');
    chooseDriver().apply([CHANGE]);
  }
  process.env['PATH'] = '/usr/sbin:/usr/bin:/sbin:/bin';
  removePrograms(
    ...['iptables', 'iptables-nft', 'iptables-legacy', 'ip6tables-legacy'].flatMap((name) => [
      `${name}-save`,
      `${name}-restore`,
    ]),
  );
  assert.equal(
    otherDrivers().map(({ name }) => name),
    ['iptables-nft'],
  );
  assert.is(missing(), undefined);
  removeEverywhere([REMOVAL], warn);
  assert.throws(missing, /this host has no iptables-restore, needed for IPv4 rules/);
});

test.run();
