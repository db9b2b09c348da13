import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { lstatSync, mkdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { bootBegan } from '../../../../shared/ipam/reclaim.ts';
import { addressesInUse } from '../../../../shared/attachments/namespaces.ts';
import { ipamAdd } from '../../../../shared/ipam/ipam.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';
import { callOn, leasesIn, newDataDir } from './calls.ts';

const test = suite('leases that no running container can be using');

const DAY = 24 * 3600;
/** Two usable addresses: .2 and .3 … of 10.1.2.0/29 that is five. */
const ipam = { ranges: [[{ subnet: '10.1.2.0/29', rangeEnd: '10.1.2.3' }]] };

test('the start of this boot is before anything of it, and before what the kernel says', () => {
  const began = bootBegan() ?? Number.NaN;
  const kernel = Number(/^btime (\d+)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1]) * 1000;
  assert.ok(began < kernel, `${began} < ${kernel}`);
  for (const path of ['/dev/null', '/dev/console', '/run']) {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat !== undefined) assert.ok(began < stat.ctimeMs, path);
  }
});

test('older traces count more than a kernel clock that was set forward; without traces the start of this boot is unknown', () => {
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

test('leases of an earlier boot are reclaimed when the range runs out, not before', () => {
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

test('leases of an earlier boot are reclaimed when exactly their address is requested', () => {
  const store = storeWith({ '10.1.2.2': 'old\r\neth0', '10.1.2.3': 'old\r\neth1' });
  age(`${store}/10.1.2.2`, `${store}/10.1.2.3`);
  const dataDir = store.replace(/\/net$/, '');
  assert.is(
    ipamAdd(callOn(dataDir, { id: 'a', ipam, cniArgs: 'IP=10.1.2.3' })).ips[0]?.address,
    '10.1.2.3/29',
  );
  assert.is(leasesIn(store)['10.1.2.2'], 'old\r\neth0');
});

test('an old lease that its owner asked for again in this boot stays', () => {
  const store = storeWith({ '10.1.2.2': 'old\r\neth0', '10.1.2.3': 'a\r\neth0' });
  age(`${store}/10.1.2.2`);
  const dataDir = store.replace(/\/net$/, '');
  assert.is(ipamAdd(callOn(dataDir, { id: 'old', ipam })).ips[0]?.address, '10.1.2.2/29');
  assert.throws(() => ipamAdd(callOn(dataDir, { id: 'b', ipam })), /no IP addresses available/);
});

test('an old lease whose address a network namespace has stays', () => {
  const store = storeWith({ '10.1.2.2': 'old\r\neth0', '10.1.2.3': 'a\r\neth0' });
  age(`${store}/10.1.2.2`);
  execFileSync('ip', ['netns', 'add', 'living']);
  execFileSync('ip', ['-n', 'living', 'address', 'add', '10.1.2.2/29', 'dev', 'lo']);
  assert.equal(addressesInUse().byAddress.get('10.1.2.2'), ['/run/netns/living']);
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

test('failed ADDs whose DEL never came do not exhaust the range', () => {
  const dataDir = newDataDir();
  const given = new Set<string>();
  for (let at = 0; at < 12; at++) {
    const { ips } = ipamAdd(callOn(dataDir, { id: `failed${at}`, ipam }));
    given.add(ips[0]?.address ?? '');
    for (const name of Object.keys(leasesIn(`${dataDir}/net`))) makeOlder(`${dataDir}/net/${name}`);
  }
  assert.equal([...given].sort(), ['10.1.2.2/29', '10.1.2.3/29']);
});

test('reclaiming names the file, the container and the reason', () => {
  const store = storeWith({ '10.1.2.2': 'gone\r\neth0', '10.1.2.3': 'living\r\neth0' });
  for (const name of ['10.1.2.2', '10.1.2.3']) makeOlder(`${store}/${name}`);
  execFileSync('ip', ['netns', 'add', 'living']);
  const call = callOn(store.replace(/\/net$/, ''), { id: 'new', ipam });
  assert.is(ipamAdd(call).ips[0]?.address, '10.1.2.2/29');
  assert.equal(call.warnings, [
    `reclaimed ${store}/10.1.2.2: container gone no longer exists: no network namespace has the address, and no cached result names it`,
  ]);
  execFileSync('ip', ['netns', 'delete', 'living']);
});

test('a lease younger than a minute stays: its ADD may still be running', () => {
  const dataDir = newDataDir();
  for (const id of ['a', 'b']) ipamAdd(callOn(dataDir, { id, ipam }));
  const error = thrown(() => ipamAdd(callOn(dataDir, { id: 'c', ipam })));
  assert.is(
    error.details,
    '2 leased, 2 of them to containers whose ADD failed or is still running; ' +
      'retry in a minute, when ADD frees those of failed ones, or widen the range',
  );
  assert.equal(Object.keys(leasesIn(`${dataDir}/net`)), ['10.1.2.2', '10.1.2.3']);
});

test('a lease whose container may be alive stays: named namespace, cached result, process, bind mount of another mount namespace', async () => {
  const ipam5 = { ranges: [[{ subnet: '10.1.2.0/29' }]] };
  const store = storeWith({
    '10.1.2.2': 'named\r\neth0',
    '10.1.2.3': 'cached\r\neth0',
    '10.1.2.4': 'process\r\neth0',
    '10.1.2.5': 'hidden\r\neth0',
    '10.1.2.6': 'ended\r\neth0',
  });
  for (const name of Object.keys(leasesIn(store))) makeOlder(`${store}/${name}`);
  for (const name of ['named', 'other']) execFileSync('ip', ['netns', 'add', name]);
  cacheResult('cached', '/run/netns/other');
  cacheResult('ended', '/run/netns/ended');
  const address = (ip: string): string => `ip address add ${ip}/29 dev lo`;
  const holders = [
    spawn('unshare', ['-n', 'sh', '-c', `${address('10.1.2.4')}; echo ready; exec sleep 60`]),
    // A namespace without a process, mounted where only this process sees it.
    spawn('unshare', [
      ...['-m', '--propagation', 'private', 'sh', '-c'],
      `mount -t tmpfs tmpfs /mnt; touch /mnt/net; unshare --net=/mnt/net sh -c '${address('10.1.2.5')}'; echo ready; exec sleep 60`,
    ]),
  ];
  try {
    await Promise.all(holders.map(({ stdout }) => once(stdout, 'data')));
    const call = callOn(store.replace(/\/net$/, ''), { id: 'new', ipam: ipam5 });
    const error = thrown(() => ipamAdd(call));
    assert.equal(call.warnings, []);
    assert.is(
      error.details,
      '5 leased, 1 of them to containers that no longer exist; run "weft gc", or widen the range',
    );
  } finally {
    for (const holder of holders) holder.kill('SIGKILL');
    await Promise.all(holders.map((holder) => once(holder, 'exit')));
    for (const name of ['named', 'other']) execFileSync('ip', ['netns', 'delete', name]);
  }
  const later = callOn(store.replace(/\/net$/, ''), { id: 'new', ipam: ipam5 });
  ipamAdd(later);
  assert.is(
    later.warnings.length,
    3,
    'named, process and hidden are gone now; cached and ended have a cached result',
  );
  rmSync('/var/lib/cni/results', { recursive: true });
});

test('a range of a gateway and subnet ends only: the error says that no container can have one of them', () => {
  for (const range of [
    { subnet: '10.1.2.0/30', rangeStart: '10.1.2.1', rangeEnd: '10.1.2.1' },
    { subnet: '10.1.2.0/30', rangeStart: '10.1.2.3', rangeEnd: '10.1.2.3' },
    { subnet: '10.1.2.0/30', rangeStart: '10.1.2.0', rangeEnd: '10.1.2.0', gateway: '10.1.2.2' },
  ]) {
    const error = thrown(() => ipamAdd(callOn(newDataDir(), { ipam: { ranges: [[range]] } })));
    assert.match(error.message, 'no IP addresses available in range set');
    assert.match(error.details ?? '', 'only gateways and first or last addresses of subnets');
    assert.not.match(error.details ?? '', 'leased');
  }
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

/** As if written a minute and a half ago. */
function makeOlder(path: string): void {
  const then = Date.now() / 1000 - 90;
  utimesSync(path, then, then);
}

function cacheResult(containerId: string, netns: string): void {
  mkdirSync('/var/lib/cni/results', { recursive: true });
  const entry = { kind: 'cniCacheV1', containerId, ifName: 'eth0', networkName: 'net', config: '', netns };
  writeFileSync(`/var/lib/cni/results/net-${containerId}-eth0`, JSON.stringify(entry));
}
