/**
 * Versions of iptables-nft test headers in different orders. The rules of 1.8.9 are compared with a real one in encode-rule.test.ts;
 * those of 1.8.11 were recorded from Debian 13's, which lists, checks (-C) and deletes (-D) every rule that the suite writes.
 */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { decodeRule } from '../../../../../shared/packetfilter/iptables-nft/decode-rule.ts';
import { ruleText } from '../../../../../shared/packetfilter/iptables/render.ts';
import type { Family } from '../../../../../shared/packetfilter/ruleset.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('rules of a newer iptables-nft');

const recorded = readFileSync(resolve(import.meta.dirname, 'iptables-1.8.11.golden.txt'), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [, family, hex = '', text] = /^(ipv[46]) ([0-9a-f]+) (.*)$/.exec(line) ?? [];
    return { family: family as Family, bytes: Buffer.from(hex, 'hex'), text };
  });

test('are read as the rules that they are', () => {
  assert.is(recorded.length, 16);
  for (const { family, bytes, text } of recorded) {
    const rule = decodeRule(family, bytes);
    assert.is(rule && ruleText(rule), text);
  }
});

test('are foreign when one bit of a test is another', () => {
  for (const { family, bytes, text } of recorded) {
    const other = Buffer.from(bytes);
    // NFTA_PAYLOAD_DREG of the first expression: a register that no version uses here.
    other.writeUInt8(other.readUInt8(27) ^ 2, 27);
    assert.is(decodeRule(family, other), undefined, text);
  }
});

test.run();
