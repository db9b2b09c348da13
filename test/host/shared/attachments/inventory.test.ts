import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { inventory, type InventoryEntry } from '../../../../shared/attachments/inventory.ts';

const test = suite('the attachments of this host');

function write(path: string, text: string, seconds = 1_700_000_000): void {
  const file = `/var/lib/cni/${path}`;
  mkdirSync(file.replace(/\/[^/]+$/, ''), { recursive: true });
  writeFileSync(file, text);
  utimesSync(file, seconds, seconds);
}

const CONFIG = {
  cniVersion: '1.0.0',
  name: 'net1',
  plugins: [
    { type: 'bridge', ipam: { type: 'host-local' } },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
};

function cache(containerId: string, address: string, { netns = '', seconds = 1_700_000_000 } = {}): void {
  const entry = {
    kind: 'cniCacheV1',
    containerId,
    ifName: 'eth0',
    networkName: 'net1',
    config: Buffer.from(JSON.stringify(CONFIG)).toString('base64'),
    ...(netns === '' ? {} : { netns }),
    capabilityArgs: { portMappings: [{ hostPort: 80 }], other: 1 },
    result: { cniVersion: '1.0.0', ips: [{ address: `${address}/24` }] },
  };
  write(`results/net1-${containerId}-eth0`, JSON.stringify(entry), seconds);
}

function entryOf(containerId: string): InventoryEntry {
  const [found, ...more] = inventory().filter((entry) => entry.containerId === containerId);
  assert.ok(found);
  assert.is(more.length, 0);
  return found;
}

test('cached results and leases are joined, in the order of their ADDs, with what the plugins were given', () => {
  execFileSync('ip', ['netns', 'add', 'c1']);
  cache('c1', '10.0.0.2', { netns: '/var/run/netns/c1', seconds: 1_700_000_100 });
  write('networks/net1/10.0.0.2', 'c1\r\neth0');
  write('networks/net1/10.0.0.3', 'c0\r\neth0', 1_700_000_000);
  const [older, newer] = inventory();
  assert.is(older?.containerId, 'c0');
  const { dev, ino } = statSync('/var/run/netns/c1');
  assert.equal(newer, {
    network: 'net1',
    containerId: 'c1',
    ifname: 'eth0',
    netns: '/var/run/netns/c1',
    namespace: { dev, ino },
    addresses: ['10.0.0.2/24'],
    hostInterfaces: [],
    plugins: [
      CONFIG.plugins[0],
      { ...CONFIG.plugins[1], runtimeConfig: { portMappings: [{ hostPort: 80 }] } },
    ],
    cniVersion: '1.0.0',
    prevResult: { cniVersion: '1.0.0', ips: [{ address: '10.0.0.2/24' }] },
    args: [],
    capabilityArgs: { portMappings: [{ hostPort: 80 }], other: 1 },
    addedAtMs: 1_700_000_100_000,
    state: 'running',
    reason: 'network namespace /var/run/netns/c1 exists',
    cacheFile: '/var/lib/cni/results/net1-c1-eth0',
    leaseFiles: ['/var/lib/cni/networks/net1/10.0.0.2'],
  });
});

test('gone: no namespace of its own, none of its name, and none with its address', () => {
  cache('c2', '10.0.0.4', { netns: '/var/run/netns/c2' });
  assert.is(entryOf('c2').state, 'gone');
  assert.is(
    entryOf('c2').reason,
    'network namespace /var/run/netns/c2 does not exist, and no namespace has its address',
  );
  assert.is(entryOf('c0').state, 'gone');
});

test('running: a namespace without a name that a process holds has the address', async () => {
  cache('c3', '10.0.0.5');
  const child = spawn('unshare', [
    '--net',
    'sh',
    '-c',
    'ip addr add 10.0.0.5/24 dev lo; echo ready; exec sleep 60',
  ]);
  await once(child.stdout, 'data');
  const { state, reason } = entryOf('c3');
  assert.is(state, 'running');
  assert.is(reason, `network namespace /proc/${child.pid}/ns/net has address 10.0.0.5`);
  // Its lease alone, as with containerd, which caches no results.
  rmSync('/var/lib/cni/results/net1-c3-eth0');
  write('networks/net1/10.0.0.5', 'c3');
  assert.is(entryOf('c3').state, 'running');
  child.kill('SIGKILL');
  await once(child, 'exit');
  assert.is(entryOf('c3').state, 'gone');
});

test('gone: a running container has the address by now; not while a lease says that it is still its own', () => {
  execFileSync('ip', ['-n', 'c1', 'addr', 'add', '10.0.0.2/24', 'dev', 'lo']);
  cache('c6', '10.0.0.2', { netns: '/var/run/netns/c6' });
  assert.is(entryOf('c6').state, 'gone');
  // Networks with the same subnet: the lease is the other one's, of the same address.
  write('networks/net2/10.0.0.2', 'c7\r\neth0');
  assert.is(entryOf('c7').state, 'running');
  rmSync('/var/lib/cni/networks/net2', { recursive: true });
  rmSync('/var/lib/cni/results/net1-c6-eth0');
});

test('a path of a process counts only while the namespace there has the address', () => {
  cache('c4', '10.0.0.6', { netns: `/proc/${process.pid}/ns/net` });
  assert.is(entryOf('c4').state, 'gone');
  cache('c4', '127.0.0.1', { netns: `/proc/${process.pid}/ns/net` });
  assert.is(entryOf('c4').state, 'running');
});

test('without the search, an attachment without a namespace is unknown', () => {
  const states = inventory({ searchNamespaces: false }).map(({ containerId, state }) => [containerId, state]);
  assert.equal(Object.fromEntries(states), {
    c0: 'unknown',
    c1: 'running',
    c2: 'unknown',
    c3: 'unknown',
    c4: 'running',
  });
});

test('an entry without address and namespace is unknown; files that are no entries are skipped', () => {
  const entry = { kind: 'cniCacheV1', containerId: 'c5', ifName: 'eth0', networkName: 'net1' };
  write('results/net1-c5-eth0', JSON.stringify(entry));
  write('results/net1-broken', '{');
  assert.is(entryOf('c5').state, 'unknown');
});

test.run();
