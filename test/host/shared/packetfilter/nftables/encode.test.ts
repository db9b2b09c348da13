/** Every statement and object, written by nft(8) from text and by this suite as bytes: the kernel must hold the same. */
import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import { deleteTable, Message } from '../../../../../shared/packetfilter/nftables/messages.ts';
import {
  chainCommand,
  elementCommand,
  ruleCommand,
  setCommand,
  tableCommand,
} from '../../../../../shared/packetfilter/nftables/text.ts';
import { attributeOf } from '../../../../../shared/packetfilter/nftables/nlattr.ts';
import { suite } from '../../../../support/suite.ts';
import { nftScript } from '../../../../support/variants.ts';
import { requestsOf, SAMPLES, type Sample } from '../../../../support/packetfilter/samples.ts';

const test = suite('nf_tables encoder', { limit: 30 });

function writeAsText({ table, chains, sets, elements, rules }: Sample): void {
  const commands = [
    tableCommand(table),
    ...sets.map(setCommand),
    ...chains.map(chainCommand),
    ...elements.map(elementCommand),
    ...rules.map(ruleCommand),
  ];
  nftScript(commands);
}

/** The expressions and comment of every rule, as bytes. */
function rawRules({ table }: Sample, connection: NftConnection): string[] {
  return connection
    .dump('rules', Message.getRule, table.family, [[1, table.name]])
    .map((body) => [2, 4, 7].map((type) => attributeOf(body, type)?.toString('hex') ?? '-').join(' '));
}

function listing(): string {
  return execFileSync('nft', ['-n', '-s', 'list', 'ruleset'], { encoding: 'utf8' });
}

for (const [name, sample] of SAMPLES) {
  test(`${name}: the same rules as nft(8) writes`, () => {
    using connection = NftConnection.open();
    writeAsText(sample);
    const theirs = rawRules(sample, connection);
    const theirListing = listing();
    connection.commit([deleteTable(sample.table)]);
    connection.commit(requestsOf(sample));
    assert.is(theirs.length, sample.rules.length);
    assert.equal(rawRules(sample, connection), theirs);
    assert.is(listing(), theirListing);
    connection.commit([deleteTable(sample.table)]);
  });
}

test.run();
