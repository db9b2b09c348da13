import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { CniError } from '../../../../../shared/cni/errors.ts';
import { KernelError } from '../../../../../shared/kernel/errno.ts';
import { NftConnection } from '../../../../../shared/packetfilter/nftables/connection.ts';
import { changeNft, removeFromNft, readNft } from '../../../../../shared/packetfilter/nftables/change.ts';
import { encodeStatements } from '../../../../../shared/packetfilter/nftables/encode.ts';
import {
  addChain,
  addElements,
  addRule,
  addSet,
  addTable,
  flushChain,
} from '../../../../../shared/packetfilter/nftables/messages.ts';
import type {
  NftChain,
  NftSet,
  NftStatement,
  NftTable,
} from '../../../../../shared/packetfilter/nftables/model.ts';
import { suite } from '../../../../support/suite.ts';

const test = suite('changing nf_tables');

const table: NftTable = { family: 'inet', name: 'sample' };
const chain: NftChain = { table, name: 'own', comment: 'whose' };
const set: NftSet = { table, name: 'ports', key: ['inet_proto', 'inet_service'], data: 'verdict' };
const statements: NftStatement[] = [
  { kind: 'address', side: 'saddr', cidr: '10.0.0.0/8' },
  { kind: 'counter' },
  { kind: 'accept' },
];
const nft = (...args: string[]): string => execFileSync('nft', args, { encoding: 'utf8' });

const fill = [
  addTable(table),
  addChain(chain),
  addSet(set, 1),
  flushChain(chain),
  addRule(chain, { expressions: encodeStatements('inet', statements), comment: 'of "nobody"' }, 'last'),
  addElements(set, [{ set, key: ['tcp', '80'], data: { kind: 'jump', chain: 'own' }, comment: 'holder' }]),
];

test.beforeEach(() => void nft('flush', 'ruleset'));

test('an empty host: nothing stands, and looking makes nothing', () => {
  readNft((view) => {
    assert.not(view.hasTable(table));
    assert.not(view.hasChain(chain));
    assert.not(view.hasSet(set));
    assert.equal(view.rules(chain), []);
    assert.equal(view.chains(table), []);
    assert.is(view.element(set, ['tcp', '80']), undefined);
  });
  assert.is(nft('list', 'ruleset'), '');
});

test('what was committed is seen', () => {
  changeNft({ what: 'fill the sample' }, () => fill);
  nft('add', 'table', 'inet', 'other');
  nft('add', 'chain', 'inet', 'other', 'own');
  readNft((view) => {
    assert.ok(view.hasTable(table) && view.hasChain(chain) && view.hasSet(set));
    assert.equal(view.chains(table), [{ name: 'own', comment: 'whose' }]);
    const [rule, ...more] = view.rules(chain);
    assert.is(more.length, 0);
    assert.is(rule?.comment, 'of "nobody"');
    assert.ok(rule?.is({ statements, comment: 'of "nobody"' }));
    assert.not(rule?.is({ statements, comment: 'of somebody' }));
    assert.not(rule?.is({ statements: [{ kind: 'accept' }], comment: 'of "nobody"' }));
    assert.equal(view.element(set, ['tcp', '80']), { comment: 'holder', verdict: -3, chain: 'own' });
    assert.is(view.element(set, ['udp', '80']), undefined);
  });
  changeNft({ what: 'empty the chain' }, (view) => view.rules(chain).map((rule) => rule.deletion()));
  assert.equal(
    readNft((view) => view.rules(chain)),
    [],
  );
});

test('a plan is asked again when somebody else commits in between', () => {
  let asked = 0;
  changeNft({ what: 'fill the sample' }, () => {
    asked += 1;
    if (asked === 1) nft('add', 'table', 'ip', 'intruder');
    return fill;
  });
  assert.is(asked, 2);
  assert.match(nft('list', 'tables'), 'inet sample');
});

test('a refusal changes nothing and says what was refused', () => {
  const bad = addChain({ table: { family: 'inet', name: 'missing' }, name: 'x' });
  try {
    changeNft({ what: 'do the impossible' }, () => [...fill, bad]);
    assert.unreachable();
  } catch (thrown) {
    assert.instance(thrown, CniError);
    assert.match(
      (thrown as CniError).message,
      /^could not do the impossible: the kernel refused: add chain inet missing x: ENOENT/,
    );
  }
  assert.is(nft('list', 'ruleset'), '');
});

test('what only takes away is content with a kernel that has no nf_tables', () => {
  const { generation } = NftConnection.prototype;
  const EINVAL = 22;
  NftConnection.prototype.generation = () => {
    throw new KernelError('get generation', EINVAL);
  };
  try {
    removeFromNft({ what: 'take the sample away' }, () => {
      throw new Error('was asked');
    });
    assert.throws(() => changeNft({ what: 'fill the sample' }, () => fill), /EINVAL/);
  } finally {
    NftConnection.prototype.generation = generation;
  }
});

test('many elements asked for at once are the same as one by one', () => {
  changeNft({ what: 'fill the sample' }, () => fill);
  const ports = Array.from({ length: 700 }, (_, at) => ['tcp', String(at + 1)]);
  const few = ports.slice(70, 90);
  readNft((view) => {
    const one = view.element(set, ['tcp', '80']);
    assert.equal([one?.comment, one?.chain], ['holder', 'own']);
    for (const keys of [few, ports]) {
      const found = view.elementsAt(set, keys);
      assert.is(found.length, keys.length);
      assert.equal(
        found.flatMap((element, at) => (element === undefined ? [] : [[keys[at]?.[1], element.chain]])),
        [['80', 'own']],
      );
    }
    assert.equal(view.elementsAt({ ...set, name: 'never' }, ports).filter(Boolean), []);
  });
});

test.run();
