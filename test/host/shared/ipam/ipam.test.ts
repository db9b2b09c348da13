import {
  chmodSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import * as assert from 'uvu/assert';
import { ipamAdd, ipamDel } from '../../../../shared/ipam/ipam.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';
import { callOn, leasesIn, newDataDir, type CallOptions } from './calls.ts';

const test = suite('allocator');

test('the store has the names, texts and modes of the reference', () => {
  const dataDir = newDataDir();
  const { ips } = add(dataDir);
  assert.equal(ips, [{ address: '10.1.2.2/24', gateway: '10.1.2.1' }]);
  assert.equal(leasesIn(`${dataDir}/net`), { '10.1.2.2': 'cont1\r\neth0' });
  assert.is(readFileSync(`${dataDir}/net/last_reserved_ip.0`, 'utf8'), '10.1.2.2');
  assert.equal(readdirSync(dataDir), ['net']);
  const mode = (name: string): string => (lstatSync(`${dataDir}/net/${name}`).mode & 0o777).toString(8);
  assert.equal(['', '10.1.2.2', 'last_reserved_ip.0', 'lock'].map(mode), ['755', '600', '600', '750']);
});

test('the same attachment again keeps its addresses; another interface gets others', () => {
  const dataDir = newDataDir();
  const ranges = [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]];
  const first = add(dataDir, { ipam: { ranges } }).ips;
  assert.equal(
    first.map(({ address }) => address),
    ['10.1.2.2/24', 'fd00::2/64'],
  );
  assert.equal(add(dataDir, { ipam: { ranges } }).ips, first);
  assert.equal(add(dataDir, { ipam: { ranges }, cniArgs: 'IP=10.1.2.2' }).ips, first);
  assert.equal(
    add(dataDir, { ipam: { ranges }, ifname: 'eth1' }).ips.map(({ address }) => address),
    ['10.1.2.3/24', 'fd00::3/64'],
  );
  assert.is(readFileSync(`${dataDir}/net/last_reserved_ip.1`, 'utf8'), 'fd00::3');
});

test('a range added later gets its address, and the one that is held stays', () => {
  const dataDir = newDataDir();
  add(dataDir);
  const ranges = [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]];
  assert.equal(
    add(dataDir, { ipam: { ranges } }).ips.map(({ address }) => address),
    ['10.1.2.2/24', 'fd00::2/64'],
  );
});

test('a live lease and a different requested address exclude each other', () => {
  const dataDir = newDataDir();
  add(dataDir);
  const error = thrown(() => add(dataDir, { cniArgs: 'IP=10.1.2.60' }));
  assert.match(
    error.message,
    'failed to allocate for range 0: requested IP address 10.1.2.60, but 10.1.2.2 has been allocated to cont1',
  );
  assert.match(error.message, 'duplicate allocation is not allowed');
  assert.equal(Object.keys(leasesIn(`${dataDir}/net`)), ['10.1.2.2']);
});

test('requested addresses: free, own, gateway, taken, not for interfaces', () => {
  const dataDir = newDataDir();
  assert.is(add(dataDir, { cniArgs: 'IP=10.1.2.60/8' }).ips[0]?.address, '10.1.2.60/24');
  assert.is(readFileSync(`${dataDir}/net/last_reserved_ip.0`, 'utf8'), '10.1.2.60');
  const message = (options: CallOptions): string =>
    thrown(() => add(dataDir, { id: 'other', ...options })).message;
  assert.is(
    message({ cniArgs: 'IP=10.1.2.1' }),
    "failed to allocate for range 0: requested ip 10.1.2.1 is subnet's gateway",
  );
  const taken = thrown(() => add(dataDir, { id: 'other', cniArgs: 'IP=10.1.2.60' }));
  assert.is(
    taken.message,
    'failed to allocate for range 0: requested IP address 10.1.2.60 is not available in range set 10.1.2.1-10.1.2.254',
  );
  assert.is(taken.details, 'it is leased to cont1 (eth0)');
  const wide = { ranges: [[{ subnet: '10.1.2.0/24', rangeStart: '10.1.2.0', rangeEnd: '10.1.2.255' }]] };
  for (const ip of ['10.1.2.0', '10.1.2.255'])
    assert.match(message({ ipam: wide, cniArgs: `IP=${ip}` }), 'first or last address of its subnet');
  assert.equal(Object.keys(leasesIn(`${dataDir}/net`)), ['10.1.2.60']);
});

test('what no interface can have is skipped even inside rangeStart and rangeEnd; so is every gateway of the network', () => {
  const dataDir = newDataDir();
  const ipam = {
    ranges: [
      [{ subnet: '10.1.2.0/29', rangeStart: '10.1.2.0', rangeEnd: '10.1.2.7', gateway: '10.1.2.3' }],
      [{ subnet: '10.1.3.0/29', gateway: '10.1.2.5' }],
      [{ subnet: 'fd00::/126', rangeStart: 'fd00::', gateway: 'fd00::2' }],
    ],
  };
  const given = ['a', 'b', 'c', 'd'].map((id) =>
    attempt(() => add(dataDir, { id, ipam }).ips.map(({ address }) => address)),
  );
  assert.equal(given.slice(0, 2), [
    ['10.1.2.1/29', '10.1.3.1/29', 'fd00::1/126'],
    ['10.1.2.2/29', '10.1.3.2/29', 'fd00::3/126'],
  ]);
  assert.equal(given.slice(2), [
    'failed to allocate for range 2: no IP addresses available in range set: fd00::-fd00::3',
    'failed to allocate for range 2: no IP addresses available in range set: fd00::-fd00::3',
  ]);
});

test('a released address is reused as late as possible', () => {
  const dataDir = newDataDir();
  const ipam = { ranges: [[{ subnet: '10.1.2.0/29' }]] };
  const take = (id: string): string => add(dataDir, { id, ipam }).ips[0]?.address ?? '';
  assert.equal(['a', 'b', 'c', 'd'].map(take), ['10.1.2.2/29', '10.1.2.3/29', '10.1.2.4/29', '10.1.2.5/29']);
  del(dataDir, { id: 'b' });
  assert.is(take('e'), '10.1.2.6/29');
  assert.is(take('f'), '10.1.2.3/29');
  assert.is(
    thrown(() => take('g')).message,
    'failed to allocate for range 0: no IP addresses available in range set: 10.1.2.1-10.1.2.6',
  );
  del(dataDir, { id: 'a' });
  assert.is(take('g'), '10.1.2.2/29');
});

test('with a last_reserved_ip that is damaged, out of range or missing, allocation begins at the start', () => {
  for (const text of ['garbage', '', '10.9.9.9', '\0\0\0', '10.1.2.40/24']) {
    const dataDir = newDataDir();
    mkdirSync(`${dataDir}/net`);
    writeFileSync(`${dataDir}/net/last_reserved_ip.0`, text);
    assert.is(add(dataDir).ips[0]?.address, '10.1.2.2/24', JSON.stringify(text));
    assert.is(readFileSync(`${dataDir}/net/last_reserved_ip.0`, 'utf8'), '10.1.2.2');
  }
});

test('a second range set that fails takes the first back, and only what this call made', () => {
  const dataDir = newDataDir();
  const ipam = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.9.0.0/30' }]] };
  add(dataDir, { id: 'a', ipam });
  assert.match(
    thrown(() => add(dataDir, { id: 'b', ipam })).message,
    'failed to allocate for range 1: no IP addresses available',
  );
  assert.equal(Object.keys(leasesIn(`${dataDir}/net`)), ['10.1.2.2', '10.9.0.2']);
  add(dataDir, { id: 'c' });
  assert.throws(() => add(dataDir, { id: 'c', ipam }));
  assert.is(leasesIn(`${dataDir}/net`)['10.1.2.4'], 'c\r\neth0');
});

test('empty leases and those of zero bytes are free; folders and links under an address are skipped', () => {
  const dataDir = newDataDir();
  const store = `${dataDir}/net`;
  mkdirSync(`${store}/10.1.2.4`, { recursive: true });
  writeFileSync(`${store}/10.1.2.2`, '');
  writeFileSync(`${store}/10.1.2.3`, '\0\0\0\0');
  symlinkSync('/etc/passwd', `${store}/10.1.2.5`);
  const given = ['a', 'b', 'c'].map((id) => add(dataDir, { id }).ips[0]?.address);
  assert.equal(given, ['10.1.2.2/24', '10.1.2.3/24', '10.1.2.6/24']);
});

test('a file whose text is no lease stays until the range is exhausted', () => {
  const dataDir = newDataDir();
  const ipam = { ranges: [[{ subnet: '10.1.2.0/29' }]] };
  mkdirSync(`${dataDir}/net`);
  writeFileSync(`${dataDir}/net/10.1.2.2`, 'kept for the printer');
  writeFileSync(`${dataDir}/net/10.1.2.3`, 'reserved');
  const given = ['a', 'b', 'c'].map((id) => add(dataDir, { id, ipam }).ips[0]?.address);
  assert.equal(given, ['10.1.2.4/29', '10.1.2.5/29', '10.1.2.6/29']);
  const last = callOn(dataDir, { id: 'd', ipam });
  assert.is(ipamAdd(last).ips[0]?.address, '10.1.2.2/29');
  assert.match(last.warnings.join(), `reclaimed ${dataDir}/net/10.1.2.2: its text is no lease`);
  assert.throws(() => add(dataDir, { id: 'e', ipam }), /no IP addresses available/);
  assert.is(readFileSync(`${dataDir}/net/10.1.2.3`, 'utf8'), 'reserved');
});

test('more than one address of a family needs 0.3.0', () => {
  const ipam = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.1.3.0/24' }]] };
  const error = thrown(() => add(newDataDir(), { version: '0.2.0', ipam }));
  assert.is(error.message, 'CNI version 0.2.0 does not support more than 1 address per family');
  add(newDataDir(), {
    version: '0.2.0',
    ipam: { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]] },
  });
  add(newDataDir(), { version: '0.3.0', ipam });
});

test('a missing resolvConf fails before anything is made', () => {
  const dataDir = newDataDir();
  assert.is(
    thrown(() => add(dataDir, { ipam: { resolvConf: '/nope' } })).message,
    'open /nope: no such file or directory',
  );
  assert.equal(readdirSync(dataDir), []);
});

test('the error names a store that cannot be used, and the reason', () => {
  const dataDir = newDataDir();
  writeFileSync(`${dataDir}/net`, 'a file');
  const error = thrown(() => add(dataDir));
  assert.is(error.code, 5);
  assert.match(error.message, `cannot use the lease store ${dataDir}/net: EEXIST`);
  chmodSync(dataDir, 0o755);
});

test.run();

function add(dataDir: string, options: CallOptions = {}): ReturnType<typeof ipamAdd> {
  return ipamAdd(callOn(dataDir, options));
}

function del(dataDir: string, options: CallOptions = {}): void {
  ipamDel(callOn(dataDir, options));
}

function attempt<T>(work: () => T): T | string {
  try {
    return work();
  } catch (error) {
    return (error as Error).message;
  }
}
