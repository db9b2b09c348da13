import { existsSync, lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { ipamAdd, ipamCheck, ipamDel, ipamGc, ipamStatus } from '../../../../shared/ipam/ipam.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';
import { callOn, removalOn, leasesIn, newDataDir, type CallOptions } from './calls.ts';

const test = suite('allocator: release, check, collect');

test('release() releases the leases that the call created, never those it found', () => {
  const dataDir = newDataDir();
  const first = add(dataDir);
  add(dataDir).release();
  assert.equal(Object.keys(leasesIn(`${dataDir}/net`)), ['10.1.2.2']);
  first.release();
  first.release();
  assert.equal(leasesIn(`${dataDir}/net`), {});
});

test('files that name only the container: adopted by ADD, released by DEL when nothing exact is there', () => {
  const dataDir = newDataDir();
  mkdirSync(`${dataDir}/net`);
  writeFileSync(`${dataDir}/net/10.1.2.77`, 'cont1\n');
  assert.is(add(dataDir).ips[0]?.address, '10.1.2.77/24');
  assert.is(leasesIn(`${dataDir}/net`)['10.1.2.77'], 'cont1\r\neth0');
  assert.is(lstatSync(`${dataDir}/net/10.1.2.77`).mode & 0o777, 0o600);
  assert.is(add(dataDir, { ifname: 'eth1' }).ips[0]?.address, '10.1.2.2/24');

  writeFileSync(`${dataDir}/net/10.1.2.78`, 'cont1');
  del(dataDir, { ifname: 'eth1' });
  assert.equal(Object.keys(leasesIn(`${dataDir}/net`)), ['10.1.2.77', '10.1.2.78']);
  del(dataDir, { ifname: 'eth1' });
  assert.equal(Object.keys(leasesIn(`${dataDir}/net`)), ['10.1.2.77']);
});

test('DEL: every lease of the attachment, wherever the reference would look; absent things are fine', () => {
  const dataDir = newDataDir();
  del(dataDir);
  assert.not(existsSync(`${dataDir}/net`));
  const store = `${dataDir}/net`;
  mkdirSync(`${store}/sub`, { recursive: true });
  for (const name of ['10.1.2.5', '10.1.2.6', 'not-an-address', 'sub/10.1.2.7', 'sub/x'])
    writeFileSync(`${store}/${name}`, 'cont1\r\neth0\n');
  writeFileSync(`${store}/10.1.2.8`, 'cont1\r\neth1');
  writeFileSync(`${store}/last_reserved_ip.0`, 'cont1\r\neth0');
  del(dataDir);
  assert.equal(readdirSync(store).sort(), ['10.1.2.8', 'last_reserved_ip.0', 'lock', 'sub']);
  assert.equal(readdirSync(`${store}/sub`), []);
  del(dataDir);
  del(dataDir, { id: 'unknown' });
  del(dataDir, { ipam: { ranges: [[{ subnet: 'broken' }]] }, ifname: 'eth1', cniArgs: 'FOO=1' });
  assert.not(existsSync(`${store}/10.1.2.8`));
});

test('CHECK is about the very addresses of prevResult', () => {
  const dataDir = newDataDir();
  const check = (options: CallOptions): void => ipamCheck(callOn(dataDir, options));
  const prev = (...addresses: string[]): CallOptions['prevResult'] & object => ({
    interfaces: [
      { name: 'eth0', sandbox: '/n' },
      { name: 'lo', sandbox: '/n' },
    ],
    ips: addresses.map((address) => ({ address, interface: address.startsWith('127') ? 1 : 0 })),
    routes: [],
    dns: {},
  });
  const none = thrown(() => check({ prevResult: prev('10.1.2.2/24') }));
  assert.match(none.message, 'host-local: Failed to find address added by container cont1');
  assert.not.match(none.message, 'not found');
  assert.not(existsSync(`${dataDir}/net`));
  add(dataDir);
  check({ prevResult: prev('127.0.0.1/8', '10.1.2.2/24', '192.0.2.1/24') });
  check({});
  check({ prevResult: prev() });
  add(dataDir, { id: 'other' });
  const swapped = thrown(() => check({ prevResult: prev('10.1.2.3/24') }));
  assert.match(swapped.message, '10.1.2.3 is not leased to it');
  assert.is(swapped.details, 'leased to other, interface eth0');
  assert.throws(() => check({ ifname: 'eth1' }), /Failed to find address added by container cont1 \(eth1\)/);
  writeFileSync(`${dataDir}/net/10.1.2.9`, 'legacy');
  check({ id: 'legacy', ifname: 'any', prevResult: prev() });
});

test('GC keeps valid attachments, old files of valid containers, lock and last_reserved_ip', () => {
  const dataDir = newDataDir();
  const store = `${dataDir}/net`;
  for (const id of ['a', 'b', 'c']) for (const ifname of ['eth0', 'eth1']) add(dataDir, { id, ifname });
  for (const [name, text] of [
    ['10.1.2.77', 'a'],
    ['10.1.2.78', 'gone'],
    ['10.1.2.79', 'two words'],
    ['10.1.2.80', ''],
  ])
    writeFileSync(`${store}/${name}`, text as string);
  const valid = [
    { containerID: 'a', ifname: 'eth0' },
    { containerID: 'b', ifname: 'eth1' },
  ];
  ipamGc(callOn(dataDir, { valid }));
  assert.equal(readdirSync(store).sort(), [
    '10.1.2.2',
    '10.1.2.5',
    '10.1.2.77',
    '10.1.2.79',
    'last_reserved_ip.0',
    'lock',
  ]);
  const silent = callOn(dataDir);
  ipamGc(silent);
  assert.is(Object.keys(leasesIn(store)).length, 4);
  assert.match(silent.warnings.join(), 'nothing released');
  ipamGc(callOn(dataDir, { valid: [] }));
  assert.equal(Object.keys(leasesIn(store)), ['10.1.2.79']);
  ipamGc(callOn(dataDir, { valid: [], network: 'never-made' }));
  assert.equal(readdirSync(dataDir), ['net']);
});

test('STATUS: 50 for a pool without usable addresses, not while leases exist, not for an exhausted one', () => {
  const dataDir = newDataDir();
  const status = (ipam: Record<string, unknown>): void => ipamStatus(callOn(dataDir, { ipam }));
  const onlyGateway = { ranges: [[{ subnet: '10.1.2.0/29', rangeStart: '10.1.2.1', rangeEnd: '10.1.2.1' }]] };
  const broken = { ranges: [[{ subnet: '10.1.2.7/29' }]] };
  assert.is(thrown(() => status(onlyGateway)).code, 50);
  assert.is(thrown(() => status(broken)).code, 7);
  assert.match(
    thrown(() => status(onlyGateway)).message,
    'range set 10.1.2.1-10.1.2.1 has no address to give',
  );
  const tiny = { ranges: [[{ subnet: '10.1.2.0/30' }]] };
  status(tiny);
  assert.not(existsSync(`${dataDir}/net`));
  add(dataDir, { ipam: tiny });
  assert.throws(() => add(dataDir, { id: 'more', ipam: tiny }), /no IP addresses available/);
  for (const ipam of [tiny, onlyGateway]) status(ipam);
  del(dataDir);
  status(tiny);
});

test.run();

function add(dataDir: string, options: CallOptions = {}): ReturnType<typeof ipamAdd> {
  return ipamAdd(callOn(dataDir, options));
}

function del(dataDir: string, options: CallOptions = {}): void {
  ipamDel(removalOn(dataDir, options));
}
