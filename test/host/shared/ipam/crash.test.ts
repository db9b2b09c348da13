import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { INDEX_DIR } from '../../../../shared/ipam/index-file.ts';
import { ipamAdd, ipamDel, ipamGc } from '../../../../shared/ipam/ipam.ts';
import { suite } from '../../../support/suite.ts';
import { callOn, leasesIn, newDataDir } from './calls.ts';

const test = suite('killed at any moment', { limit: 240 });

const CHILD = resolve(import.meta.dirname, 'crash-child.ts');
const ipam = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]] };

/** Few leases: no index. Many: one is kept, and was left by an earlier call. */
const STORES = { few: 2, many: 40 };

for (const [size, count] of Object.entries(STORES)) {
  test(`ADD with ${size} leases: a repeated ADD succeeds, DEL leaves nothing`, () => {
    everyMoment('ADD', 'new', count, (dataDir) => {
      const before = leasesIn(`${dataDir}/net`);
      const { ips } = ipamAdd(callOn(dataDir, { id: 'new', ipam }));
      const after = ownedBy(dataDir, 'new');
      assert.equal(
        after,
        ips.map(({ address }) => address.split('/')[0]).sort(),
        'one lease per address given',
      );
      for (const held of ownersIn(before, 'new'))
        assert.ok(after.includes(held), 'the address it had before the kill');
      assertTidy(dataDir, count);
      ipamDel(callOn(dataDir, { id: 'new', ipam }));
      assert.equal(ownedBy(dataDir, 'new'), []);
      assertTidy(dataDir, count);
    });
  });

  test(`DEL with ${size} leases: a repeated DEL leaves nothing, and the address can be had again`, () => {
    everyMoment('DEL', 'base2', count, (dataDir) => {
      ipamDel(callOn(dataDir, { id: 'base2', ipam }));
      assert.equal(ownedBy(dataDir, 'base2'), []);
      const { ips } = ipamAdd(callOn(dataDir, { id: 'base2', ipam, cniArgs: 'IP=10.1.2.2' }));
      assert.is(ips[0]?.address, '10.1.2.2/24');
      assertTidy(dataDir, count);
    });
  });
}

test('GC: a repeated GC leaves exactly what is valid', () => {
  everyMoment('GC', 'any', 34, (dataDir) => {
    const valid = Array.from({ length: 40 }, (_, at) => ({ containerID: `base${at + 5}`, ifname: 'eth0' }));
    ipamGc(callOn(dataDir, { ipam, valid }));
    const left = Object.keys(leasesIn(`${dataDir}/net`));
    assert.equal(left.sort(), Array.from({ length: 31 }, (_, at) => `10.1.2.${at + 5}`).sort());
    assert.is(ipamAdd(callOn(dataDir, { id: 'new', ipam })).ips[0]?.address, '10.1.2.36/24');
  });
});

test.run();

/** Kills the call in place of its first, second, … file operation, until one run survives; `afterwards` judges each. */
function everyMoment(verb: string, id: string, count: number, afterwards: (dataDir: string) => void): void {
  for (let moment = 1; ; moment++) {
    const dataDir = preparedStore(count);
    const child = spawnSync(process.execPath, ['--no-warnings', CHILD, dataDir, verb, id, String(moment)], {
      encoding: 'utf8',
    });
    if (child.signal !== 'SIGKILL') {
      assert.is(child.status, 0, child.stderr);
      assert.ok(moment > 2, `only ${moment} moments: the kill does not see the calls`);
      return;
    }
    try {
      assertWhole(dataDir, count);
      afterwards(dataDir);
    } catch (error) {
      throw new Error(`killed at moment ${moment}: ${(error as Error).message}`, { cause: error });
    }
  }
}

function preparedStore(count: number): string {
  const dataDir = newDataDir();
  mkdirSync(`${dataDir}/net`);
  for (let at = 2; at < count + 2; at++) writeFileSync(`${dataDir}/net/10.1.2.${at}`, `base${at}\r\neth0`);
  writeFileSync(`${dataDir}/net/last_reserved_ip.0`, `10.1.2.${count + 1}`);
  ipamDel(callOn(dataDir, { id: 'absent', ipam }));
  assert.is(
    existsSync(INDEX_DIR) && readdirSync(INDEX_DIR).length > 0,
    count >= 32,
    'an index with many leases only',
  );
  return dataDir;
}

/** At any moment: every lease has its whole text, and no container lost its lease to another one. */
function assertWhole(dataDir: string, count: number): void {
  const leases = leasesIn(`${dataDir}/net`);
  for (const [name, text] of Object.entries(leases)) assert.match(text, /^(base\d+|new)\r\neth0$/, name);
  for (const [name, text] of Object.entries(leases)) {
    if (text.startsWith('base')) assert.is(`10.1.2.${/\d+/.exec(text)?.[0]}`, name);
  }
  assert.ok(Object.keys(leases).length <= count + 2);
}

/** Everybody else's leases are as they were, and no temporary file is left beside or inside the store. */
function assertTidy(dataDir: string, count: number): void {
  const others = Object.entries(leasesIn(`${dataDir}/net`)).filter(([, text]) => text.startsWith('base'));
  assert.is(others.filter(([name]) => name.startsWith('10.')).length, count);
  assert.equal(readdirSync(dataDir), ['net']);
  const names = readdirSync(`${dataDir}/net`);
  assert.equal(
    names.filter((name) => !/^([0-9a-f.:]+|lock|last_reserved_ip\.[01])$/.test(name)),
    [],
  );
}

function ownedBy(dataDir: string, id: string): string[] {
  return ownersIn(leasesIn(`${dataDir}/net`), id);
}

function ownersIn(leases: Record<string, string>, id: string): string[] {
  return Object.entries(leases)
    .flatMap(([name, text]) => (text === `${id}\r\neth0` ? [name] : []))
    .sort();
}
