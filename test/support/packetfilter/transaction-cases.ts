/** What nf_tables does with the transactions of this suite: the kernel's, and the one in memory (fake-nftables.ts). */
import { readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { CniError } from '../../../shared/cni/errors.ts';
import { isErrno } from '../../../shared/kernel/errno.ts';
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import { changeNft, readNft, removeFromNft } from '../../../shared/packetfilter/nftables/change.ts';
import { NftConnection } from '../../../shared/packetfilter/nftables/connection.ts';
import {
  addChain,
  addElements,
  addSet,
  addTable,
  deleteChain,
  deleteElements,
  deleteSet,
  deleteTable,
  flushChain,
  flushSet,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import type {
  NftChain,
  NftElement,
  NftSet,
  NftStatement,
  NftTable,
} from '../../../shared/packetfilter/nftables/model.ts';
import type { Suite } from '../suite.ts';
import { requestsOf, SAMPLES } from './samples.ts';

export interface NftHost {
  /** Removes every table. */
  reset(): void;
  /** As `nft -n -s list ruleset` prints it. */
  list(): string;
}

const TABLE: NftTable = { family: 'inet', name: 'sample' };
const OWN: NftChain = { table: TABLE, name: 'own', comment: 'whose' };
const OTHER: NftChain = { table: TABLE, name: 'other' };
const BASE: NftChain = { table: TABLE, name: 'base', hook: { type: 'filter', hook: 'forward', priority: 0 } };
const PORTS: NftSet = { table: TABLE, name: 'ports', key: ['inet_proto', 'inet_service'], data: 'verdict' };
const NETWORKS: NftSet = { table: TABLE, name: 'networks', key: ['ipv4_addr'], interval: true };
const STATEMENTS: NftStatement[] = [
  { kind: 'address', side: 'saddr', cidr: '10.0.0.0/8' },
  { kind: 'counter' },
  { kind: 'accept' },
];
const PORT_80: NftElement = {
  set: PORTS,
  key: ['tcp', '80'],
  data: { kind: 'jump', chain: 'own' },
  comment: 'holder',
};
const FILL: readonly NetlinkRequest[] = [
  addTable(TABLE),
  addChain(OWN),
  addSet(PORTS, 1),
  flushChain(OWN),
  ruleRequest({ chain: OWN, statements: STATEMENTS, comment: 'of "one"' }),
  addElements(PORTS, [PORT_80]),
];

export function transactionCases(test: Suite, host: NftHost): void {
  const fill = (): void => changeNft({ what: 'fill the sample' }, () => FILL);
  /** What another program commits. */
  const meanwhile = (...requests: NetlinkRequest[]): void => {
    using connection = NftConnection.open();
    connection.commit(requests);
  };

  test.beforeEach(() => host.reset());

  test('without tables everything is absent, and reading creates nothing', () => {
    readNft((reader) => {
      assert.not(
        reader.hasTable(TABLE) || reader.hasAnyTable([TABLE]) || reader.hasChain(OWN) || reader.hasSet(PORTS),
      );
      assert.equal(
        [reader.rules(OWN), reader.chains(TABLE), reader.elements(PORTS), reader.tables()],
        [[], [], [], []],
      );
      assert.is(reader.element(PORTS, ['tcp', '80']), undefined);
    });
    removeFromNft({ what: 'remove the sample' }, (reader) => reader.rules(OWN).map((one) => one.deletion()));
    assert.is(host.list(), '');
  });

  test('what was committed is read back', () => {
    fill();
    meanwhile(
      addTable({ family: 'inet', name: 'second' }),
      addChain({ table: { family: 'inet', name: 'second' }, name: 'own' }),
    );
    readNft((reader) => {
      assert.ok(reader.hasTable(TABLE) && reader.hasChain(OWN) && reader.hasSet(PORTS));
      assert.equal(reader.chains(TABLE), [{ name: 'own', comment: 'whose' }]);
      const [rule, ...more] = reader.rules(OWN);
      assert.is(more.length, 0);
      assert.ok(rule?.is({ statements: STATEMENTS, comment: 'of "one"' }));
      assert.not(rule?.is({ statements: STATEMENTS, comment: 'of another' }));
      assert.not(rule?.is({ statements: [{ kind: 'accept' }], comment: 'of "one"' }));
      assert.equal(reader.element(PORTS, ['tcp', '80']), { comment: 'holder', verdict: -3, chain: 'own' });
      assert.is(reader.element(PORTS, ['udp', '80']), undefined);
    });
    changeNft({ what: 'empty the chain' }, (reader) => reader.rules(OWN).map((rule) => rule.deletion()));
    assert.equal(
      readNft((reader) => reader.rules(OWN)),
      [],
    );
  });

  for (const [name, sample] of SAMPLES) {
    test(`tables of family ${name}: every statement and object is listed as nft(8) does`, () => {
      meanwhile(...requestsOf(sample));
      const golden = readFileSync(`${import.meta.dirname}/goldens/${name}.nft`, 'utf8');
      assert.is(sortedElements(host.list()), golden);
    });
  }

  test('a plan is evaluated again when another program commits in between', () => {
    let asked = 0;
    changeNft({ what: 'fill the sample' }, () => {
      asked += 1;
      if (asked === 1) meanwhile(addTable({ family: 'ip', name: 'intruder' }));
      return FILL;
    });
    assert.is(asked, 2);
    assert.match(host.list(), 'table inet sample');
  });

  test('a transaction for an earlier generation is refused', () => {
    using connection = NftConnection.open();
    const generation = connection.generation();
    meanwhile(addTable({ family: 'ip', name: 'intruder' }));
    assert.throws(
      () => connection.commit([addTable(TABLE)], generation),
      (error: unknown) => isErrno(error, 'ERESTART'),
    );
    assert.is(connection.generation(), generation + 1);
    connection.commit([addTable(TABLE)], generation + 1);
    assert.match(host.list(), 'table inet sample');
  });

  for (const [what, errno, requests] of REFUSED) {
    test(`refused, and nothing of the transaction is done: ${what}`, () => {
      fill();
      meanwhile(addChain(OTHER), addChain(BASE));
      const before = host.list();
      const last = { table: TABLE, name: 'never' };
      assert.throws(
        () => meanwhile(addChain({ table: TABLE, name: 'before' }), ...requests, addChain(last)),
        (error: unknown) => isErrno(error, errno) || `got ${String(error)}`,
      );
      assert.is(host.list(), before);
    });
  }

  test('an error names what was refused', () => {
    const bad = addChain({ table: { family: 'inet', name: 'missing' }, name: 'x' });
    try {
      changeNft({ what: 'do the impossible' }, () => [...FILL, bad]);
      assert.unreachable();
    } catch (thrown) {
      assert.instance(thrown, CniError);
      assert.match(
        (thrown as CniError).message,
        /^could not do the impossible: the kernel refused: add chain inet missing x: ENOENT/,
      );
    }
    assert.is(host.list(), '');
  });

  test('what exists may be added again', () => {
    fill();
    const before = host.list();
    meanwhile(addTable(TABLE), addChain(OWN), addSet(PORTS, 1), addElements(PORTS, [PORT_80]));
    assert.is(host.list(), before);
  });

  test('rules, elements, sets, chains and tables are deleted', () => {
    fill();
    meanwhile(addChain(OTHER), deleteElements(PORTS, [['tcp', '80']]), deleteChain(OWN));
    assert.equal(
      readNft((reader) => reader.chains(TABLE)),
      [{ name: 'other', comment: undefined }],
    );
    meanwhile(addElements(PORTS, [{ ...PORT_80, data: { kind: 'drop' } }]), flushSet(PORTS));
    assert.equal(
      readNft((reader) => reader.elements(PORTS)),
      [],
    );
    meanwhile(deleteSet(PORTS));
    assert.not(readNft((reader) => reader.hasSet(PORTS)));
    meanwhile(deleteTable(TABLE));
    assert.is(host.list(), '');
  });

  test('an address is found in the interval that it is in', () => {
    fill();
    meanwhile(
      addSet(NETWORKS, 2),
      addElements(NETWORKS, [{ set: NETWORKS, key: ['10.1.0.0/16'], comment: 'net' }]),
    );
    const found = (address: readonly number[]): string | undefined =>
      readNft((reader) => reader.elementByBytes(NETWORKS, Uint8Array.from(address))?.comment);
    assert.equal(
      [found([10, 1, 2, 3]), found([10, 2, 0, 0]), found([10, 0, 255, 255])],
      ['net', undefined, undefined],
    );
    assert.equal(
      readNft((reader) => reader.keyOfSet(NETWORKS)),
      { sizeBytes: 4, isInterval: true },
    );
  });

  test('many elements at once are the same as one by one', () => {
    fill();
    const ports = Array.from({ length: 700 }, (_, at) => ['tcp', String(at + 1)]);
    readNft((reader) => {
      for (const keys of [ports.slice(70, 90), ports]) {
        const found = reader.elementsAt(keys.map((key) => ({ set: PORTS, key })));
        assert.is(found.length, keys.length);
        assert.equal(
          found.flatMap((element, at) => (element === undefined ? [] : [[keys[at]?.[1], element.chain]])),
          [['80', 'own']],
        );
      }
      const never = ports.map((key) => ({ set: { ...PORTS, name: 'never' }, key }));
      assert.equal(reader.elementsAt(never).filter(Boolean), []);
    });
  });
}

const jump = (from: NftChain, chain: string): NetlinkRequest =>
  ruleRequest({ chain: from, statements: [{ kind: 'jump', chain }] });

const REFUSED: readonly (readonly [what: string, errno: string, requests: readonly NetlinkRequest[]])[] = [
  ['a jump to a missing chain', 'ENOENT', [jump(OWN, 'missing')]],
  ['a jump to a base chain', 'EOPNOTSUPP', [jump(OWN, 'base')]],
  ['jumps in a circle', 'EMLINK', [jump(BASE, 'own'), jump(OTHER, 'own'), jump(OWN, 'other')]],
  ['a rule of a missing chain', 'ENOENT', [jump({ ...OWN, name: 'missing' }, 'own')]],
  [
    'a lookup in a missing set',
    'ENOENT',
    [
      ruleRequest({
        chain: OWN,
        statements: [{ kind: 'lookup', fields: ['ip saddr'], set: { ...NETWORKS, name: 'missing' } }],
      }),
    ],
  ],
  ['deletion of a chain that a rule jumps to', 'EBUSY', [jump(BASE, 'other'), deleteChain(OTHER)]],
  ['deletion of a chain that an element jumps to', 'EBUSY', [deleteChain(OWN)]],
  ['deletion of a missing chain', 'ENOENT', [deleteChain({ table: TABLE, name: 'missing' })]],
  [
    'deletion of a set that a rule uses',
    'EBUSY',
    [
      ruleRequest({
        chain: OTHER,
        statements: [{ kind: 'lookup', fields: ['meta l4proto', 'th dport'], set: PORTS }],
      }),
      deleteSet(PORTS),
    ],
  ],
  ['an element of a missing set', 'ENOENT', [addElements({ ...PORTS, name: 'missing' }, [PORT_80])]],
  ['an element that exists, where it must not', 'EEXIST', [addElements(PORTS, [PORT_80], { excl: true })]],
  ['an element with other data', 'EBUSY', [addElements(PORTS, [{ ...PORT_80, data: { kind: 'drop' } }])]],
  [
    'an element that jumps to a missing chain',
    'ENOENT',
    [addElements(PORTS, [{ set: PORTS, key: ['tcp', '81'], data: { kind: 'jump', chain: 'missing' } }])],
  ],
  ['deletion of a missing element', 'ENOENT', [deleteElements(PORTS, [['udp', '80']])]],
  ['a chain name of 256 bytes', 'ERANGE', [addChain({ table: TABLE, name: 'x'.repeat(256) })]],
  ['an existing chain as a base chain', 'EEXIST', [addChain({ ...BASE, name: 'own' })]],
  ['a missing table', 'ENOENT', [deleteTable({ family: 'ip6', name: 'sample' })]],
];

/** nft prints the elements of a set in no order that a reader could tell, and on as many lines as they need. */
function sortedElements(text: string): string {
  return text.replaceAll(/elements = \{ ([^}]*) \}/g, (_, elements: string) => {
    const sorted = elements.split(/,\s+/).sort();
    return `elements = { ${sorted.join(', ')} }`;
  });
}
