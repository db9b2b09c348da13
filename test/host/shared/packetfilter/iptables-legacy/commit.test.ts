/** Legacy tables written in process: what stands there afterwards is what iptables-legacy-restore would have left, counters included. */
import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { inNamespace } from '../../../../../shared/kernel/namespace.ts';
import { readTableBlob, type TableBlob } from '../../../../../shared/kernel/legacy-table.ts';
import { createIptablesDriver } from '../../../../../shared/packetfilter/iptables/driver.ts';
import { LAYOUTS } from '../../../../../shared/packetfilter/iptables-legacy/layout.ts';
import type {
  Family,
  PacketFilterDriver,
  TableChange,
  TableName,
} from '../../../../../shared/packetfilter/ruleset.ts';
import { Random } from '../../../../support/random.ts';
import { suite } from '../../../../support/suite.ts';
import { sh, useVariant } from '../../../../support/variants.ts';
import { RandomChanges } from './random-changes.ts';

const test = suite('legacy tables written in process', { limit: 120 });

const OURS = createIptablesDriver({ where: 'container', timeoutMs: 20_000 });
const PROGRAMS = createIptablesDriver({ where: 'container', timeoutMs: 20_000, onlyPrograms: true });
const RESTORE = { ipv4: 'iptables-legacy-restore', ipv6: 'ip6tables-legacy-restore' } as const;
const SAVE = { ipv4: 'iptables-legacy-save', ipv6: 'ip6tables-legacy-save' } as const;

test.before(() => {
  useVariant('legacy');
  for (const name of ['ours', 'theirs']) sh(`ip netns add ${name}`);
});

/** Rules of others, of every kind that has to be carried along: unknown targets and matches, gotos, no target at all. */
const FOREIGN = [
  '[10:1000] -A INPUT -p esp -j ACCEPT',
  '[11:1100] -A INPUT -i lo',
  '[12:1200] -A INPUT -m statistic --mode random --probability 0.5 -j MINE',
  '[13:1300] -A INPUT -p tcp -m tcp --sport 80 --tcp-flags SYN,ACK SYN -g zebra',
  '[14:1400] -A OUTPUT -m limit --limit 5/min -j LOG --log-prefix "x "',
  '[15:1500] -A MINE -j Ärger',
  '[16:1600] -A MINE',
  '[17:1700] -A zebra -m hashlimit --hashlimit-upto 5/sec --hashlimit-name x -j RETURN',
  '[18:1800] -A Ärger -m string --string x --algo bm -j MARK --set-xmark 0x1/0xff',
  '[19:1900] -A A1 -j zebra',
];

function seed(family: Family, table: TableName): void {
  const policies =
    table === 'filter' ? [':INPUT DROP [3:300]', ':FORWARD ACCEPT [4:400]'] : [':INPUT ACCEPT [3:300]'];
  const chains = ['zebra', 'MINE', 'Ärger', 'A1'].map((chain) => `:${chain} - [0:0]`);
  const input = [`*${table}`, ...policies, ...chains, ...FOREIGN, 'COMMIT', ''].join('\n');
  // A name that is no UTF-8.
  execFileSync(RESTORE[family], ['--counters'], { input: Buffer.from(input, 'latin1') });
}

interface Standing {
  /** As iptables-legacy-save prints it, counters of rules and all. */
  readonly saved: string;
  /** As the kernel hands it out. */
  readonly blob: TableBlob | undefined;
}

/** Without the counters of policies: the program loses those with every change. */
function standing(family: Family, table: TableName): Standing {
  const saved = execFileSync(SAVE[family], ['-c', '-t', table], { encoding: 'latin1' });
  const blob = readTableBlob(family, table);
  const counters = LAYOUTS[family].matches - 16;
  for (const policy of blob?.underflow.filter((at) => at < blob.entries.length) ?? []) {
    blob?.entries.fill(0, policy + counters, policy + counters + 16);
  }
  return { saved: saved.replaceAll(/^#.*\n/gm, '').replaceAll(/^(:.*) \[.*\]$/gm, '$1'), blob };
}

/** What a change leaves of a table, and the code of its error. */
function result(driver: PacketFilterDriver, change: TableChange): Standing & { readonly code: unknown } {
  let code: unknown;
  try {
    driver.apply([change]);
  } catch (thrown) {
    code = (thrown as { code?: unknown }).code;
  }
  return { code, ...standing(change.family, change.table) };
}

for (const [family, table] of [
  ['ipv4', 'filter'],
  ['ipv4', 'nat'],
  ['ipv6', 'filter'],
  ['ipv6', 'nat'],
] as const) {
  test(`${family} ${table}: after each of 60 random changes, the very table that the programs leave`, () => {
    const changes = new RandomChanges(new Random(table.length + family.length), family, table);
    for (const name of ['ours', 'theirs']) inNamespace(`/run/netns/${name}`, () => seed(family, table));
    let refused = 0;
    for (let count = 0; count < 60; count++) {
      const change = changes.next();
      const ours = inNamespace('/run/netns/ours', () => result(OURS, change));
      const theirs = inNamespace('/run/netns/theirs', () => result(PROGRAMS, change));
      assert.is(ours.saved, theirs.saved, JSON.stringify(change, null, 1));
      assert.is(ours.code, theirs.code);
      assert.equal(ours.blob, theirs.blob, JSON.stringify(change, null, 1));
      if (ours.code !== undefined) refused += 1;
    }
    assert.ok(refused < 30, `${refused} of 60 changes were refused by both`);
  });
}

test('a table of a thousand chains', () => {
  const names = Array.from({ length: 1000 }, (_, at) => `P${at}`);
  const input = [
    '*nat',
    ...names.map((name) => `:${name} - [0:0]`),
    ...names.map((name, at) => `[${at}:1] -A PREROUTING -p tcp -j ${name}\n[1:${at}] -A ${name} -j RETURN`),
    'COMMIT\n',
  ].join('\n');
  const both = ['ours', 'theirs'].map((name) => `/run/netns/${name}`);
  for (const netns of both) inNamespace(netns, () => execFileSync(RESTORE.ipv4, ['--counters'], { input }));
  const rule = { target: { kind: 'jump', chain: 'P0' } } as const;
  const change: TableChange = {
    family: 'ipv4',
    table: 'nat',
    setChains: [{ chain: 'P0a', rules: [{ target: { kind: 'jump', chain: 'P999' } }] }],
    ensureRules: [{ chain: 'PREROUTING', rule, at: 'first' }],
    deleteChains: ['P500'],
  };
  const [ours, theirs] = both.map((netns, at) =>
    inNamespace(netns, () => result(at === 0 ? OURS : PROGRAMS, change)),
  );
  assert.equal(ours, theirs);
  assert.is(ours?.blob?.count, 4 + 1000 + 3 * 1000 + 1);
});

test.run();
