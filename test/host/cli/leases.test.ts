import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, utimesSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { formatAge, formatTable } from '../../../cli/terminal.ts';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

const test = suite('weft leases', { limit: 60 });

interface Listed {
  network: string;
  address: string;
  container: string | null;
  interface: string | null;
  ageSeconds: number;
  state: string;
  namespace: string | null;
  hostInterfaces: { name: string; exists: boolean }[];
}

test('every lease with its owner, age and whether its network still exists', () => {
  const dataDir = mkdtempSync('/run/data-');
  leaseFiles(`${dataDir}/blue`, {
    '10.1.2.10': 'old-style',
    '10.1.2.9': 'living\r\neth0',
    '10.1.2.2': 'dead\r\neth0',
    '10.1.2.3': 'moved\r\neth1',
    '10.1.2.4': 'two words',
    'fd00::2': 'living\r\neth0',
    'last_reserved_ip.0': '10.1.2.9',
    lock: '',
  });
  leaseFiles(`${dataDir}/green`, { '10.9.0.2': 'dead\r\neth0' });
  leaseFiles(`${dataDir}/tuning`, { 'not-a-store.json': '{}' });
  for (const name of ['living', 'moved']) execFileSync('ip', ['netns', 'add', name]);
  execFileSync('ip', ['-n', 'living', 'address', 'add', '10.1.2.9/24', 'dev', 'lo']);
  cacheResult('blue', 'moved', 'eth1', '/run/netns/moved', ['vethgone', 'lo']);
  cacheResult('blue', 'dead', 'eth0', '/run/netns/was-here', []);

  const listed = JSON.parse(weft('--data-dir', dataDir, '--json')) as Listed[];
  const brief = listed.map((lease) => [
    lease.network,
    lease.address,
    lease.container,
    lease.interface,
    lease.state,
    lease.namespace,
  ]);
  assert.equal(brief, [
    ['blue', '10.1.2.2', 'dead', 'eth0', 'gone', '/run/netns/was-here'],
    ['blue', '10.1.2.3', 'moved', 'eth1', 'no address', '/run/netns/moved'],
    ['blue', '10.1.2.4', null, null, 'not a lease', null],
    ['blue', '10.1.2.9', 'living', 'eth0', 'live', '/run/netns/living'],
    ['blue', '10.1.2.10', 'old-style', null, 'gone', null],
    ['blue', 'fd00::2', 'living', 'eth0', 'no address', '/var/run/netns/living'],
    ['green', '10.9.0.2', 'dead', 'eth0', 'gone', null],
  ]);
  assert.equal(listed[1]?.hostInterfaces, [
    { name: 'vethgone', exists: false },
    { name: 'lo', exists: true },
  ]);
  for (const { ageSeconds } of listed) assert.ok(ageSeconds >= 7200 && ageSeconds < 7300, String(ageSeconds));
});

test('a table for people, one network of it, and nothing', () => {
  const dataDir = mkdtempSync('/run/data-');
  leaseFiles(`${dataDir}/blue`, { '10.1.2.2': 'a\r\neth0' });
  leaseFiles(`${dataDir}/green`, { '10.9.0.2': 'b\r\neth0' });
  const table = weft('--data-dir', dataDir, '--network', 'green');
  const [head, row, ...rest] = table.split('\n').map((line) => line.split(/ {2,}/));
  assert.equal(head, ['NETWORK', 'ADDRESS', 'CONTAINER', 'INTERFACE', 'AGE', 'STATE', 'NAMESPACE']);
  assert.match(row?.[4] ?? '', /^2h( \d+s)?$/);
  assert.equal(
    [row?.slice(0, 4), row?.slice(5)],
    [
      ['green', '10.9.0.2', 'b', 'eth0'],
      ['gone', '-'],
    ],
  );
  assert.equal(rest, [['']]);
  assert.not.match(table, 'blue');
  mkdirSync('/run/empty');
  assert.is(weft('--data-dir', '/run/empty'), 'no leases\n');
});

test('ages in two units', () => {
  const ages = [0, 8, 65, 3600, 3661, 90_000, 864_000].map(formatAge);
  assert.equal(ages, ['0s', '8s', '1m 5s', '1h', '1h 1m', '1d 1h', '10d']);
});

test('columns are as wide as they must be', () => {
  assert.is(
    formatTable(
      ['A', 'B'],
      [
        ['long', 'x'],
        ['y', ''],
      ],
    ),
    'A     B\nlong  x\ny\n',
  );
  const rows = [['0123456789abcdef', 'payments', 'ok']];
  assert.is(
    formatTable(['ALLOC', 'JOB', 'STATE'], rows, { width: 25, cut: [0] }),
    'ALLOC     JOB       STATE\n0123456…  payments  ok\n',
  );
});

test.run();

function weft(...argv: string[]): string {
  return execFileSync(executable('weft'), ['leases', ...argv], { encoding: 'utf8' });
}

/** Two hours old. */
function leaseFiles(store: string, files: Record<string, string>): void {
  mkdirSync(store);
  const then = Date.now() / 1000 - 7200;
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(`${store}/${name}`, text);
    utimesSync(`${store}/${name}`, then, then);
  }
}

/** As libcni leaves it after an ADD. */
function cacheResult(network: string, id: string, ifname: string, netns: string, hostLinks: string[]): void {
  mkdirSync('/var/lib/cni/results', { recursive: true });
  const result = { cniVersion: '0.4.0', interfaces: hostLinks.map((name) => ({ name })), ips: [], dns: {} };
  const entry = {
    kind: 'cniCacheV1',
    containerId: id,
    config: '',
    ifName: ifname,
    networkName: network,
    netns,
    result,
  };
  writeFileSync(`/var/lib/cni/results/${network}-${id}-${ifname}`, JSON.stringify(entry));
}
