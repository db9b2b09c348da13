/** What the driver over netlink asks the kernel, beside what every driver does (fake.test.ts). */
import * as assert from 'uvu/assert';
import { parseRule } from '../../../../../shared/packetfilter/iptables/parse.ts';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import type { Rule, TableChange } from '../../../../../shared/packetfilter/ruleset.ts';
import { chooseDriver } from '../../../../../shared/packetfilter/select.ts';
import { ADDITION, REMOVAL } from '../../../../support/packetfilter/driver-cases.ts';
import { makeFakeHost } from '../../../../support/packetfilter/fake-host.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('iptables-nft driver over netlink', { limit: 60 });
const host = makeFakeHost();
const rule = (text: string): Rule => parseRule(text) as Rule;

test.beforeEach(() => host.reset());

test('jumps to a chain that is deleted are searched first in the chains that the change names', () => {
  for (const chain of ['OTHER-1', 'OTHER-2', 'LIST', 'OLD']) host.command(`iptables -t nat -N ${chain}`);
  for (const chain of ['OTHER-1', 'OTHER-2']) host.command(`iptables -t nat -A ${chain} -p esp -j ACCEPT`);
  host.command('iptables -t nat -A OLD -p esp -j ACCEPT');
  host.command('iptables -t nat -A LIST -p tcp -j OLD');
  const { list } = NftConnection.prototype;
  const asked: string[] = [];
  NftConnection.prototype.list = function (...args) {
    asked.push(args[0]);
    return list.apply(this, args);
  };
  try {
    const plan = (): Pick<TableChange, 'deleteChains'> => ({ deleteChains: ['OLD'] });
    chooseDriver().apply([{ family: 'ipv4', table: 'nat', reads: ['OLD', 'LIST'], plan }]);
  } finally {
    NftConnection.prototype.list = list;
  }
  assert.equal(asked, ['list rules of ip nat OLD', 'list rules of ip nat LIST']);
  assert.not.match(host.saved('nat'), /OLD/);
});

test('all tables are one transaction, and one refusal leaves all as they were', () => {
  const both: TableChange[] = [
    { family: 'ipv4', table: 'nat', ensureChains: ['BOTH'] },
    { family: 'ipv6', table: 'filter', ensureChains: ['BOTH'] },
  ];
  const ensureRules = [{ chain: 'INPUT', rule: rule('-j NO-SUCH-CHAIN'), at: 'last' } as const];
  assert.throws(
    () => chooseDriver().apply([...both, { family: 'ipv6', table: 'nat', ensureRules }]),
    /refused a change of table nat \(ipv4\) and table filter \(ipv6\) and table nat \(ipv6\): .*ENOENT/,
  );
  assert.is(host.list(), '');
  const before = host.kernel.generation;
  chooseDriver().apply(both);
  assert.is(host.kernel.generation, before + 1);
  assert.match(host.saved('nat'), ':BOTH');
  assert.match(host.saved('filter', 'ipv6'), ':BOTH');
});

test('a change that another program overtakes is planned again from the new table', () => {
  let plans = 0;
  const plan = (): Pick<TableChange, 'ensureChains'> => {
    plans += 1;
    if (plans === 1) host.command('iptables -t nat -N OTHER');
    return { ensureChains: ['OWN'] };
  };
  chooseDriver().apply([{ family: 'ipv4', table: 'nat', plan }]);
  assert.is(plans, 2);
  assert.match(host.saved('nat'), /:OTHER -\n:OWN -/);
});

test('one container is found among a thousand', () => {
  const others = Array.from({ length: 1000 }, (_, at) => `10.1.${Math.floor(at / 250)}.${at % 250}/32`);
  const rules = others.map((address) => rule(`-s ${address} -j ACCEPT`));
  chooseDriver().apply([{ family: 'ipv4', table: 'filter', setChains: [{ chain: 'CNI-FORWARD', rules }] }]);
  const lines = (): string[] =>
    host
      .saved('filter')
      .split('\n')
      .filter((line) => line.startsWith('-A CNI-FORWARD'));
  chooseDriver().apply(ADDITION);
  assert.is(lines().length, 1003);
  assert.is(lines().filter((line) => line.includes('10.0.0.2/32')).length, 2);
  chooseDriver().apply(REMOVAL);
  assert.is(lines().length, 1001);
  assert.not(lines().some((line) => line.includes('10.0.0.2/32')));
});

test.run();
