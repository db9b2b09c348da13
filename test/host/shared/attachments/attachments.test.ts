import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { KnownAttachments } from '../../../../shared/attachments/attachments.ts';

const known = (network = 'net1'): KnownAttachments => new KnownAttachments({ network });

const test = suite('what this host knows about attachments');

test.beforeEach(() => {
  rmSync('/var/lib/cni', { recursive: true, force: true });
});

function write(path: string, text: string): void {
  mkdirSync(`/var/lib/cni/${path}`.replace(/\/[^/]+$/, ''), { recursive: true });
  writeFileSync(`/var/lib/cni/${path}`, text);
}

test('nothing there is no error', () => {
  assert.equal(known().leasesOfAddress('10.0.0.2'), []);
  assert.equal(known().leases(), []);
  assert.equal(known().cachedResults('c1'), []);
});

test('leases by address, in every network, and by network', () => {
  write('networks/net1/10.0.0.2', 'c1\r\neth0');
  write('networks/net2/10.0.0.2', 'c2');
  write('networks/net1/fd00::2', 'c1\r\neth0');
  write('networks/net1/10.0.0.3', '');
  write('networks/net1/last_reserved_ip.0', '10.0.0.3');
  write('networks/net1/lock', '');
  const one = { network: 'net1', containerId: 'c1', ifname: 'eth0', address: '10.0.0.2' };
  const two = { network: 'net2', containerId: 'c2', ifname: undefined, address: '10.0.0.2' };
  assert.equal(known().leasesOfAddress('10.0.0.2'), [one, two]);
  assert.equal(known().leasesOfAddress('fd00:0::2'), [{ ...one, address: 'fd00::2' }]);
  assert.equal(known().leasesOfAddress('../net1/10.0.0.2'), []);
  const found = known()
    .leases()
    .sort((a, b) => a.address.localeCompare(b.address));
  assert.equal(found, [one, { ...one, address: 'fd00::2' }]);
});

test('cached results of one container on one network, and nothing else that the folder holds', () => {
  const entry = (containerId: string, networkName: string, ifName: string, more: object = {}): string =>
    JSON.stringify({ kind: 'cniCacheV1', containerId, ifName, networkName, config: '', ...more });
  const interfaces = [{ name: 'veth1' }, { name: 'eth0', sandbox: '/run/netns/c1' }];
  const result = { interfaces, ips: [{ address: '10.0.0.2/24' }, { address: 'nonsense' }] };
  write('results/net1-c1-eth0', entry('c1', 'net1', 'eth0', { netns: '/run/netns/c1', result }));
  write('results/net1-c1-eth1', entry('c1', 'net1', 'eth1'));
  write('results/net1-c1-x-eth0', entry('c1-x', 'net1', 'eth0', { result }));
  write('results/net1-c1-bad', '{');
  assert.equal(known().cachedResults('c1'), [
    {
      network: 'net1',
      containerId: 'c1',
      ifname: 'eth0',
      netns: '/run/netns/c1',
      addresses: ['10.0.0.2/24'],
      hostInterfaces: ['veth1'],
      dataDirs: [],
      plugins: [],
      args: [],
      capabilityArgs: {},
    },
    {
      network: 'net1',
      containerId: 'c1',
      ifname: 'eth1',
      netns: '',
      addresses: [],
      hostInterfaces: [],
      dataDirs: [],
      plugins: [],
      args: [],
      capabilityArgs: {},
    },
  ]);
});

test("leases where Nomad's list, or the configuration that was added, keeps them", () => {
  const nomad = '/var/run/cni/net1';
  mkdirSync(nomad, { recursive: true });
  writeFileSync(`${nomad}/10.0.0.7`, 'n1\r\neth0');
  writeFileSync(`${nomad}/last_reserved_ip.0`, '10.0.0.9');
  const other = mkdtempSync('/run/leases-');
  mkdirSync(`${other}/net1`);
  writeFileSync(`${other}/net1/10.0.0.8`, 'o1\r\neth0');
  const list = { name: 'net1', plugins: [{ type: 'bridge', ipam: { type: 'host-local', dataDir: other } }] };
  const config = Buffer.from(JSON.stringify(list)).toString('base64');
  write(
    'results/net1-o1-eth0',
    JSON.stringify({ kind: 'cniCacheV1', containerId: 'o1', ifName: 'eth0', networkName: 'net1', config }),
  );
  const lease = (containerId: string, address: string): object => ({
    network: 'net1',
    containerId,
    ifname: 'eth0',
    address,
  });
  assert.equal(known().leasesOfAddress('10.0.0.7'), [lease('n1', '10.0.0.7')]);
  assert.equal(known().leasesOfAddress('10.0.0.8'), [lease('o1', '10.0.0.8')]);
  assert.equal(known().leases(), [lease('o1', '10.0.0.8'), lease('n1', '10.0.0.7')]);
  assert.equal(known().lastReserved(), ['10.0.0.9']);
  const fromConfig = new KnownAttachments({ network: 'net2', config: { ipam: { dataDir: other } } });
  assert.equal(fromConfig.dataDirs(), [other, '/var/run/cni']);
  rmSync('/var/run/cni', { recursive: true });
});

test('a container is gone only if neither its address nor a namespace of it is left', () => {
  execFileSync('ip', ['netns', 'add', 'living']);
  execFileSync('ip', ['-n', 'living', 'address', 'add', '10.0.0.5/24', 'dev', 'lo']);
  const cached = { kind: 'cniCacheV1', ifName: 'eth0', networkName: 'net1', config: '' };
  write(
    'results/net1-moved-eth0',
    JSON.stringify({ ...cached, containerId: 'moved', netns: '/run/netns/living' }),
  );
  write(
    'results/net1-dead-eth0',
    JSON.stringify({ ...cached, containerId: 'dead', netns: '/run/netns/gone' }),
  );
  const mayBeAlive = (containerId: string, address: string): boolean =>
    known().mayBeAlive({ network: 'net1', containerId, address });
  assert.ok(mayBeAlive('unknown', '10.0.0.5'), 'a namespace has its address');
  assert.ok(mayBeAlive('living', '10.0.0.6'), 'a namespace has its name');
  assert.ok(mayBeAlive('moved', '10.0.0.6'), 'the namespace of its cached result exists');
  assert.not(mayBeAlive('dead', '10.0.0.6'), 'nothing is left');
  assert.not(mayBeAlive('unknown', '10.0.0.6'), 'nothing is left');
  execFileSync('ip', ['netns', 'delete', 'living']);
});

test('a FIFO, a device and a link among cached results and leases neither block nor count', () => {
  write('results/net1-c1-eth1', '');
  write('networks/net1/10.0.0.4', '');
  rmSync('/var/lib/cni/results/net1-c1-eth1');
  rmSync('/var/lib/cni/networks/net1/10.0.0.4');
  execFileSync('mkfifo', ['/var/lib/cni/results/net1-c1-eth0', '/var/lib/cni/networks/net1/10.0.0.2']);
  symlinkSync('/dev/zero', '/var/lib/cni/results/net1-c1-eth1');
  symlinkSync('/dev/zero', '/var/lib/cni/networks/net1/10.0.0.3');
  execFileSync('mknod', ['/var/lib/cni/networks/net1/10.0.0.4', 'c', '1', '5']);
  assert.equal(known().cachedResults('c1'), []);
  assert.equal(known().leases(), []);
  for (const address of ['10.0.0.2', '10.0.0.3', '10.0.0.4'])
    assert.equal(known().leasesOfAddress(address), []);
});

test.run();
