import { execFileSync } from 'node:child_process';
import { lstatSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { bootBegan } from '../../../../shared/ipam/boot.ts';
import { addressesInUse } from '../../../../shared/attachments/namespaces.ts';
import { ipamAdd } from '../../../../shared/ipam/ipam.ts';
import { suite } from '../../../support/suite.ts';
import { callOn, leasesIn, newDataDir } from './calls.ts';

const test = suite('leases of an earlier boot');

const DAY = 24 * 3600;
/** Two usable addresses: .2 and .3 … of 10.1.2.0/29 that is five. */
const ipam = { ranges: [[{ subnet: '10.1.2.0/29', rangeEnd: '10.1.2.3' }]] };

test('this boot began before anything of it, and before what the kernel says', () => {
  const began = bootBegan() ?? Number.NaN;
  const kernel = Number(/^btime (\d+)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1]) * 1000;
  assert.ok(began < kernel, `${began} < ${kernel}`);
  for (const path of ['/dev/null', '/dev/console', '/run']) {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat !== undefined) assert.ok(began < stat.ctimeMs, path);
  }
});

test('a kernel clock that was set forward is overruled by older traces; without traces there is no telling', () => {
  mkdirSync('/run/memory');
  execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', '/run/memory']);
  writeFileSync('/run/memory/trace', '');
  const { ctimeMs } = lstatSync('/run/memory/trace');
  const nextYear = Math.floor(Date.now() / 1000) + 365 * DAY;
  writeFileSync('/run/stat', `cpu 1 2 3\nbtime ${nextYear}\nprocesses 4\n`);
  assert.ok((bootBegan(['/run/memory'], '/run/stat') ?? Infinity) < ctimeMs);
  writeFileSync('/run/stat', 'btime 1000000\n');
  assert.is(bootBegan(['/run/memory'], '/run/stat'), 1000000_000 - 5000);
  assert.is(bootBegan(['/usr', '/proc'], '/run/stat'), undefined);
  writeFileSync('/run/stat', 'cpu 1\n');
  assert.is(bootBegan(['/run/memory'], '/run/stat'), undefined);
});

test('are reclaimed when the range runs out, not before', () => {
  const store = storeWith({ '10.1.2.2': 'old\r\neth0' });
  age(`${store}/10.1.2.2`);
  const dataDir = store.replace(/\/net$/, '');
  assert.is(ipamAdd(callOn(dataDir, { id: 'a', ipam })).ips[0]?.address, '10.1.2.3/29');
  assert.is(leasesIn(store)['10.1.2.2'], 'old\r\neth0');
  const second = callOn(dataDir, { id: 'b', ipam });
  assert.is(ipamAdd(second).ips[0]?.address, '10.1.2.2/29');
  assert.match(
    second.warnings.join(),
    `reclaimed ${store}/10.1.2.2: written before this boot, and no network namespace has the address`,
  );
  assert.throws(
    () => ipamAdd(callOn(dataDir, { id: 'c', ipam })),
    /no IP addresses available in range set: 10.1.2.1-10.1.2.3/,
  );
});

test('are reclaimed when exactly their address is requested', () => {
  const store = storeWith({ '10.1.2.2': 'old\r\neth0', '10.1.2.3': 'old\r\neth1' });
  age(`${store}/10.1.2.2`, `${store}/10.1.2.3`);
  const dataDir = store.replace(/\/net$/, '');
  assert.is(
    ipamAdd(callOn(dataDir, { id: 'a', ipam, cniArgs: 'IP=10.1.2.3' })).ips[0]?.address,
    '10.1.2.3/29',
  );
  assert.is(leasesIn(store)['10.1.2.2'], 'old\r\neth0');
});

test('one that its owner asked for again in this boot is of this boot', () => {
  const store = storeWith({ '10.1.2.2': 'old\r\neth0', '10.1.2.3': 'a\r\neth0' });
  age(`${store}/10.1.2.2`);
  const dataDir = store.replace(/\/net$/, '');
  assert.is(ipamAdd(callOn(dataDir, { id: 'old', ipam })).ips[0]?.address, '10.1.2.2/29');
  assert.throws(() => ipamAdd(callOn(dataDir, { id: 'b', ipam })), /no IP addresses available/);
});

test('one whose address some network namespace has is left alone, however old its file', () => {
  const store = storeWith({ '10.1.2.2': 'old\r\neth0', '10.1.2.3': 'a\r\neth0' });
  age(`${store}/10.1.2.2`);
  execFileSync('ip', ['netns', 'add', 'living']);
  execFileSync('ip', ['-n', 'living', 'address', 'add', '10.1.2.2/29', 'dev', 'lo']);
  assert.is(addressesInUse().byAddress.get('10.1.2.2'), '/run/netns/living');
  const dataDir = store.replace(/\/net$/, '');
  assert.throws(() => ipamAdd(callOn(dataDir, { id: 'b', ipam })), /no IP addresses available/);
  assert.is(leasesIn(store)['10.1.2.2'], 'old\r\neth0');
  execFileSync('ip', ['netns', 'delete', 'living']);
  assert.is(ipamAdd(callOn(dataDir, { id: 'b', ipam })).ips[0]?.address, '10.1.2.2/29');
});

test('leases of other ranges in the same store stay', () => {
  const store = storeWith({ '10.1.2.2': 'a\r\neth0', '10.1.2.3': 'b\r\neth0', '10.9.0.2': 'old\r\neth0' });
  age(`${store}/10.9.0.2`);
  assert.throws(
    () => ipamAdd(callOn(store.replace(/\/net$/, ''), { id: 'c', ipam })),
    /no IP addresses available/,
  );
  assert.is(leasesIn(store)['10.9.0.2'], 'old\r\neth0');
});

test.run();

function storeWith(leases: Record<string, string>): string {
  const store = `${newDataDir()}/net`;
  mkdirSync(store);
  for (const [name, text] of Object.entries(leases)) writeFileSync(`${store}/${name}`, text);
  return store;
}

/** As if written before this boot: its modification time lies a day before the oldest trace. */
function age(...paths: string[]): void {
  const then = (bootBegan() ?? Number.NaN) / 1000 - DAY;
  for (const path of paths) utimesSync(path, then, then);
}
