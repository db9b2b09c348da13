/** Every statement and object, given to the kernel as nft(8)'s text and as our own bytes: what it holds then must be the same. */
import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { isErrno } from '../../../../../shared/kernel/errno.ts';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import { ruleExpressions } from '../../../../../shared/packetfilter/nftables/encode.ts';
import {
  Message,
  addChain,
  addElements,
  addRule,
  addSet,
  addTable,
  deleteChain,
  deleteElements,
  deleteTable,
  flushChain,
  flushSet,
  getElement,
} from '../../../../../shared/packetfilter/nftables/messages.ts';
import type { NftChain, NftElement, NftTable } from '../../../../../shared/packetfilter/nftables/model.ts';
import {
  chainCommand,
  elementCommand,
  ruleCommand,
  setCommand,
  tableCommand,
} from '../../../../../shared/packetfilter/nftables/text.ts';
import { attributeOf } from '../../../../../shared/packetfilter/nftables/nlattr.ts';
import { suite } from '../../../../support/suite.ts';
import { bridgeWorld, inetWorld, world, type World } from './worlds.ts';

const test = suite('nf_tables encoder', { limit: 30 });

function writeAsText({ table, chains, sets, elements, rules }: World): void {
  const commands = [
    tableCommand(table),
    ...sets.map(setCommand),
    ...chains.map(chainCommand),
    ...elements.map(elementCommand),
    ...rules.map(ruleCommand),
  ];
  execFileSync('nft', ['-f', '-'], { input: `${commands.join('\n')}\n` });
}

function writeAsBytes({ table, chains, sets, elements, rules }: World, connection: NftConnection): void {
  connection.commit([
    addTable(table),
    ...sets.map((set, at) => addSet(set, at + 1)),
    ...chains.map(addChain),
    ...sets.flatMap((set) => {
      const own = elements.filter((element) => element.set === set);
      return own.length === 0 ? [] : [addElements(set, own)];
    }),
    ...rules.map((rule) =>
      addRule(rule.chain, { expressions: ruleExpressions(rule), comment: rule.comment }, 'last'),
    ),
  ]);
}

/** The expressions and comment of every rule, as bytes. */
function rawRules({ table }: World, connection: NftConnection): string[] {
  return connection
    .dump('rules', Message.getRule, table.family, [[1, table.name]])
    .map((body) => [2, 4, 7].map((type) => attributeOf(body, type)?.toString('hex') ?? '-').join(' '));
}

function listing(): string {
  return execFileSync('nft', ['-n', '-s', 'list', 'ruleset'], { encoding: 'utf8' });
}

const worlds: [string, World][] = [
  ['ip', world('ip')],
  ['ip6', world('ip6')],
  ['inet', inetWorld()],
  ['bridge', bridgeWorld()],
];

for (const [name, sample] of worlds) {
  test(`${name}: the same rules as nft(8) writes`, () => {
    using connection = NftConnection.open();
    writeAsText(sample);
    const theirs = rawRules(sample, connection);
    const theirListing = listing();
    connection.commit([deleteTable(sample.table)]);
    writeAsBytes(sample, connection);
    assert.is(theirs.length, sample.rules.length);
    assert.equal(rawRules(sample, connection), theirs);
    assert.is(listing(), theirListing);
    connection.commit([deleteTable(sample.table)]);
  });
}

test('elements are found, refused and removed by key', () => {
  const sample = world('ip');
  using connection = NftConnection.open();
  writeAsBytes(sample, connection);
  const ports = required(sample.sets[0]);
  assert.ok(connection.get(getElement(ports, ['tcp', '8080'])) !== undefined);
  assert.is(connection.get(getElement(ports, ['tcp', '8081'])), undefined);
  const taken: NftElement = { set: ports, key: ['tcp', '8080'], data: { kind: 'drop' } };
  assert.throws(
    () => connection.commit([addElements(ports, [taken], { excl: true })]),
    (error: unknown) => isErrno(error, 'EEXIST'),
  );
  connection.commit([deleteElements(ports, [['tcp', '8080']])]);
  assert.is(connection.get(getElement(ports, ['tcp', '8080'])), undefined);
  connection.commit([flushSet(ports)]);
  assert.is(connection.get(getElement(ports, ['udp', '53'])), undefined);
  connection.commit([deleteTable(sample.table)]);
});

test('a transaction happens whole or not at all, and names the refused object', () => {
  using connection = NftConnection.open();
  const table: NftTable = { family: 'ip', name: 'whole' };
  const missing: NftChain = { table, name: 'missing' };
  assert.throws(
    () =>
      connection.commit([
        addTable(table),
        addChain({ table, name: 'first' }),
        flushChain(missing),
        deleteChain(missing),
      ]),
    (error: unknown) =>
      isErrno(error, 'ENOENT') && error instanceof Error && error.message.includes('ip whole missing'),
  );
  assert.not.match(listing(), 'whole');
});

test('a transaction made for another generation is refused', () => {
  using connection = NftConnection.open();
  const generation = connection.generation();
  execFileSync('nft', ['add', 'table', 'ip', 'somebody']);
  assert.throws(
    () => connection.commit([addTable({ family: 'ip', name: 'late' })], generation),
    (error: unknown) => isErrno(error, 'ERESTART'),
  );
  connection.commit([addTable({ family: 'ip', name: 'late' })], connection.generation());
  assert.match(listing(), 'table ip late');
});

test.run();

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('missing');
  return value;
}
