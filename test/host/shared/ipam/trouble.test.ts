import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { parseAddress } from '../../../../shared/net/address.ts';
import { allocate } from '../../../../shared/ipam/allocate.ts';
import { ipamAdd, ipamCheck, ipamDel } from '../../../../shared/ipam/ipam.ts';
import { INDEX_DIR } from '../../../../shared/ipam/index-file.ts';
import { withStore } from '../../../../shared/ipam/store.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';
import { callOn, leasesIn, newDataDir } from './calls.ts';

const test = suite('stores in trouble', { limit: 60 });

test('a full file system: the error says so, nothing incomplete stays, and ADD works once there is space', () => {
  const dataDir = newDataDir();
  mount(dataDir, 'size=8k');
  mkdirSync(`${dataDir}/net`);
  writeFileSync(`${dataDir}/ballast`, Buffer.alloc(8192));
  const error = thrown(() => ipamAdd(callOn(dataDir)));
  assert.is(error.code, 5);
  assert.match(error.message, 'ENOSPC');
  assert.match(error.message, `cannot use the lease store ${dataDir}/net`);
  assert.equal(leasesIn(`${dataDir}/net`), {});
  assert.equal(readdirSync(dataDir).sort(), ['ballast', 'net']);
  rmSync(`${dataDir}/ballast`);
  assert.is(ipamAdd(callOn(dataDir)).ips[0]?.address, '10.1.2.2/24');
});

test('space for the lease but not for last_reserved_ip: ADD succeeds, only the order is lost', () => {
  const dataDir = newDataDir();
  // One block, for the lease itself.
  mount(dataDir, 'size=4k');
  assert.is(ipamAdd(callOn(dataDir)).ips[0]?.address, '10.1.2.2/24');
  assert.equal(leasesIn(`${dataDir}/net`), { '10.1.2.2': 'cont1\r\neth0' });
  ipamDel(callOn(dataDir));
  assert.is(ipamAdd(callOn(dataDir, { id: 'next' })).ips[0]?.address, '10.1.2.2/24');
});

test('a lease written without the lock is skipped, and released by its owner', () => {
  const dataDir = newDataDir();
  const call = callOn(dataDir);
  const sets = call.config.rangeSets;
  const request = { network: 'net', sets, at: 0, requested: undefined, owner: call, warn: call.warn };
  const folder = `${dataDir}/net`;
  const given = withStore(folder, { create: true, warn: call.warn }, (store) => {
    // All leases are read by now; what does not ask for the lock can still write.
    writeFileSync(`${folder}/10.1.2.2`, 'late\r\neth0');
    writeFileSync(`${folder}/10.1.2.3`, '');
    const { address } = allocate(store, request);
    return { address, late: store.leasesOf({ containerId: 'late', ifname: 'eth0' }).exact.length };
  });
  assert.equal(given, { address: parseAddress('10.1.2.4'), late: 1 });
  ipamDel(callOn(dataDir, { id: 'late' }));
  assert.equal(Object.keys(leasesIn(folder)), ['10.1.2.4']);
});

test('a read-only store: ADD and DEL say so, CHECK works', () => {
  const dataDir = newDataDir();
  mount(dataDir, 'size=64k');
  ipamAdd(callOn(dataDir));
  execFileSync('mount', ['-o', 'remount,ro', dataDir]);
  assert.match(thrown(() => ipamAdd(callOn(dataDir, { id: 'b' }))).message, 'EROFS');
  assert.is(thrown(() => ipamDel(callOn(dataDir))).code, 5);
  ipamCheck(callOn(dataDir));
});

test('a store on a mount of its own is written from inside', () => {
  const dataDir = newDataDir();
  mkdirSync(`${dataDir}/net`);
  mount(`${dataDir}/net`, 'size=64k');
  assert.is(ipamAdd(callOn(dataDir)).ips[0]?.address, '10.1.2.2/24');
  assert.equal(readdirSync(`${dataDir}/net`).sort(), ['10.1.2.2', 'last_reserved_ip.0', 'lock']);
  writeFileSync(`${dataDir}/net/.weft.tmp`, 'cont1\r\neth0');
  ipamDel(callOn(dataDir));
  assert.equal(readdirSync(`${dataDir}/net`).sort(), ['last_reserved_ip.0', 'lock']);
  assert.equal(readdirSync(dataDir), ['net']);
});

test('an index that cannot be written, or is garbage, costs time and nothing else', () => {
  const dataDir = newDataDir();
  mkdirSync(`${dataDir}/net`);
  for (let at = 2; at < 60; at++) writeFileSync(`${dataDir}/net/10.1.2.${at}`, `base${at}\r\neth0`);
  ipamDel(callOn(dataDir, { id: 'base2' }));
  const [name] = readdirSync(INDEX_DIR);
  for (const garbage of ['', 'x', '{}', '{"mtimeNs":1}', '\xff'.repeat(5000)]) {
    writeFileSync(`${INDEX_DIR}/${name}`, garbage, 'latin1');
    assert.is(ipamAdd(callOn(dataDir, { id: 'new' })).ips[0]?.address.startsWith('10.1.2.'), true);
    ipamDel(callOn(dataDir, { id: 'new' }));
  }
  rmSync('/run/weft', { recursive: true });
  writeFileSync('/run/weft', 'in the way');
  assert.is(ipamAdd(callOn(dataDir, { id: 'new' })).ips.length, 1);
  ipamDel(callOn(dataDir, { id: 'new' }));
  rmSync('/run/weft');
  assert.is(Object.keys(leasesIn(`${dataDir}/net`)).length, 57);
});

test('the index is removed when few leases are left, and its folder with it', () => {
  const dataDir = newDataDir();
  mkdirSync(`${dataDir}/net`);
  for (let at = 2; at < 60; at++) writeFileSync(`${dataDir}/net/10.1.2.${at}`, `base${at}\r\neth0`);
  for (let at = 2; at < 60; at++) {
    ipamDel(callOn(dataDir, { id: `base${at}` }));
    assert.is(existsSync(INDEX_DIR), 59 - at >= 32);
  }
});

test('a lock held by another process: error 11 within the time limit', async () => {
  const dataDir = newDataDir();
  ipamAdd(callOn(dataDir));
  const holder = spawn('flock', ['-F', `${dataDir}/net/lock`, 'sh', '-c', 'echo locked; exec sleep 60']);
  try {
    await once(holder.stdout, 'data');
    const began = Date.now();
    const error = thrown(() =>
      withStore(
        `${dataDir}/net`,
        { create: false, lockTimeoutMs: 300, warn: () => undefined },
        () => 'reached',
      ),
    );
    assert.is(error.code, 11);
    assert.match(error.message, `${dataDir}/net/lock`);
    assert.ok(Date.now() - began < 10_000);
  } finally {
    holder.kill('SIGKILL');
  }
});

test('thousands of sparse IPv6 leases, stay correct', () => {
  const dataDir = newDataDir();
  const ipam = { ranges: [[{ subnet: 'fd00::/64' }]] };
  mkdirSync(`${dataDir}/net`);
  for (let at = 1; at <= 1500; at++)
    writeFileSync(`${dataDir}/net/fd00::${at.toString(16)}:2`, `base${at}\r\neth0`);
  ipamDel(callOn(dataDir, { id: 'absent', ipam }));
  const before = readdirSync(INDEX_DIR).length;
  for (let at = 1501; at <= 1700; at++) {
    const address = `fd00::${at.toString(16)}:2`;
    assert.is(
      ipamAdd(callOn(dataDir, { id: `base${at}`, ipam, cniArgs: `IP=${address}` })).ips[0]?.address,
      `${address}/64`,
    );
  }
  assert.is(readdirSync(INDEX_DIR).length, before);
  for (let at = 1; at <= 1700; at += 7) {
    ipamDel(callOn(dataDir, { id: `base${at}`, ipam }));
    assert.not(existsSync(`${dataDir}/net/fd00::${at.toString(16)}:2`));
  }
});

test.run();

function mount(folder: string, options: string): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', folder]);
}
