import { mkdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { ipamAdd, ipamDel } from '../../../../shared/ipam/ipam.ts';
import { suite } from '../../../support/suite.ts';
import { callOn, newDataDir } from './calls.ts';
import { watchingFs } from './fs-calls.ts';

const test = suite('cost of ADD and DEL');

const ipam = { ranges: [[{ subnet: '10.0.0.0/16' }]] };

test('the same number of system calls with 100, 1,000 and 10,000 leases', () => {
  const [hundred, thousand, tenThousand] = [100, 1000, 10_000].map((count) => callsWith(count, 0));
  assert.ok(hundred !== undefined && thousand !== undefined && tenThousand !== undefined);
  const describe = JSON.stringify({ hundred, thousand, tenThousand });
  assert.equal([thousand.add, thousand.del], [hundred.add, hundred.del], describe);
  // Its index is read in more pieces.
  assert.ok(tenThousand.add <= hundred.add + 8 && tenThousand.del <= hundred.del + 8, describe);
  assert.is(tenThousand.leasesRead, 1, describe);
});

test('finding the one free address of a full range reads no lease file', () => {
  const calls = callsWith(10_000, 9_000);
  assert.ok(calls.add < 150, `${calls.add} calls`);
});

test.run();

/**
 * Calls of the file system that one ADD and one DEL make in a store of `count` leases whose index is kept.
 * @param behind how far before the next free address the search begins
 */
function callsWith(count: number, behind: number): { add: number; del: number; leasesRead: number } {
  const dataDir = newDataDir();
  const store = `${dataDir}/net`;
  mkdirSync(store);
  for (let at = 2; at < count + 2; at++)
    writeFileSync(`${store}/10.0.${at >> 8}.${at & 255}`, `cont${at}\r\neth0`);
  const last = count + 1 - behind;
  writeFileSync(`${store}/last_reserved_ip.0`, `10.0.${last >> 8}.${last & 255}`);
  // The first call reads every lease and leaves the index.
  ipamDel(callOn(dataDir, { id: 'absent', ipam }));
  const add = counted(() => ipamAdd(callOn(dataDir, { id: 'new', ipam })), store);
  const del = counted(() => ipamDel(callOn(dataDir, { id: 'new', ipam })), store);
  return { add: add.calls, del: del.calls, leasesRead: del.leasesOpened };
}

function counted(work: () => unknown, store: string): { calls: number; leasesOpened: number } {
  let calls = 0;
  let leasesOpened = 0;
  let listings = 0;
  watchingFs((name, [path]) => {
    calls += 1;
    if (name === 'readdirSync') listings += 1;
    if (name === 'openSync' && String(path).startsWith(`${store}/10.`)) leasesOpened += 1;
  }, work);
  assert.is(listings, 1, 'the names of the store are compared with the index, once');
  return { calls, leasesOpened };
}
