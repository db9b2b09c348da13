import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { leasesOfAddress, leasesOfNetwork } from '../../../../shared/attachments/leases.ts';
import { keptResults } from '../../../../shared/attachments/results.ts';

const test = suite('what the host’s files tell about attachments');

test.beforeEach(() => {
  rmSync('/var/lib/cni', { recursive: true, force: true });
});

function write(path: string, text: string): void {
  mkdirSync(`/var/lib/cni/${path}`.replace(/\/[^/]+$/, ''), { recursive: true });
  writeFileSync(`/var/lib/cni/${path}`, text);
}

test('nothing there is no error', () => {
  assert.equal(leasesOfAddress('10.0.0.2'), []);
  assert.equal(leasesOfNetwork('net1'), []);
  assert.equal(keptResults('net1', 'c1'), []);
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
  assert.equal(leasesOfAddress('10.0.0.2'), [one, two]);
  assert.equal(leasesOfAddress('fd00:0::2'), [{ ...one, address: 'fd00::2' }]);
  assert.equal(leasesOfAddress('../net1/10.0.0.2'), []);
  const found = leasesOfNetwork('net1').sort((a, b) => a.address.localeCompare(b.address));
  assert.equal(found, [one, { ...one, address: 'fd00::2' }]);
});

test('kept results of one container on one network, and nothing else that the folder holds', () => {
  const entry = (containerId: string, networkName: string, ifName: string, more: object = {}): string =>
    JSON.stringify({ kind: 'cniCacheV1', containerId, ifName, networkName, config: '', ...more });
  const result = { ips: [{ address: '10.0.0.2/24' }, { address: 'nonsense' }] };
  write('results/net1-c1-eth0', entry('c1', 'net1', 'eth0', { netns: '/run/netns/c1', result }));
  write('results/net1-c1-eth1', entry('c1', 'net1', 'eth1'));
  write('results/net1-c1-x-eth0', entry('c1-x', 'net1', 'eth0', { result }));
  write('results/net1-c1-bad', '{');
  assert.equal(keptResults('net1', 'c1'), [
    {
      network: 'net1',
      containerId: 'c1',
      ifname: 'eth0',
      netns: '/run/netns/c1',
      addresses: ['10.0.0.2/24'],
    },
    { network: 'net1', containerId: 'c1', ifname: 'eth1', netns: '', addresses: [] },
  ]);
});

test.run();
