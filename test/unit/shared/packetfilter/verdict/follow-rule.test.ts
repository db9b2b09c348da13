import * as assert from 'uvu/assert';
import { decodeExpressions } from '../../../../../shared/packetfilter/nftables/decode-expressions.ts';
import { changeNft, readNft } from '../../../../../shared/packetfilter/nftables/change.ts';
import {
  addChain,
  addElements,
  addSet,
  addTable,
  ruleRequest,
} from '../../../../../shared/packetfilter/nftables/messages.ts';
import type { NftChain, NftSet, NftTable } from '../../../../../shared/packetfilter/nftables/model.ts';
import { followRule } from '../../../../../shared/packetfilter/verdict/follow-rule.ts';
import type { KnownPacket } from '../../../../../shared/packetfilter/verdict/packet.ts';
import { makeFakeHost } from '../../../../support/packetfilter/fake-host.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('a packet in a rule with a concatenated set');
const host = makeFakeHost();

const TABLE: NftTable = { family: 'inet', name: 't' };
const CHAIN: NftChain = { table: TABLE, name: 'forward' };
const BLOCKED: NftSet = { table: TABLE, name: 'blocked', key: ['inet_proto', 'inet_service'] };

/** `meta l4proto . th dport [!=] { udp . 53, udp . 123 } drop` */
function matches(packet: Partial<KnownPacket>, not = false): string {
  host.reset();
  changeNft({ what: 'block ports' }, () => [
    addTable(TABLE),
    addChain(CHAIN),
    addSet(BLOCKED, 1),
    addElements(BLOCKED, [
      { set: BLOCKED, key: ['udp', '53'] },
      { set: BLOCKED, key: ['udp', '123'] },
    ]),
    ruleRequest({
      chain: CHAIN,
      statements: [
        { kind: 'lookup', fields: ['meta l4proto', 'th dport'], set: BLOCKED, not },
        { kind: 'drop' },
      ],
    }),
  ]);
  return readNft((reader) => {
    const [rule] = reader.rules(CHAIN);
    const expressions = decodeExpressions(rule?.expressions ?? Buffer.alloc(0));
    return followRule(reader, TABLE, expressions, { family: 'ip', state: 'new', ...packet }).matches;
  });
}

test('a complete key decides', () => {
  assert.is(matches({ protocol: 'udp', destinationPort: 53 }), 'yes');
  assert.is(matches({ protocol: 'udp', destinationPort: 54 }), 'no');
  assert.is(matches({ protocol: 'udp', destinationPort: 54 }, true), 'yes');
});

test('a known field that no element has decides, whatever the other field is', () => {
  assert.is(matches({ protocol: 'tcp' }), 'no');
  assert.is(matches({ protocol: 'tcp' }, true), 'yes');
  assert.is(matches({ destinationPort: 80 }), 'no');
});

test('otherwise the rule may match', () => {
  assert.is(matches({ protocol: 'udp' }), 'maybe');
  assert.is(matches({ destinationPort: 53 }), 'maybe');
  assert.is(matches({}), 'maybe');
});

test.run();
