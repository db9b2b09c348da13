import { existsSync, lstatSync, readdirSync, readFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { fail, runPluginProcess, succeed, variables } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { add, addresses, attachment, configFor, leases, newDataDir } from './calls.ts';

const test = suite('host-local, the executable: allocation', { limit: 120 });

test('first address, lease, counter and lock of both families', () => {
  const dataDir = newDataDir();
  const result = add(
    configFor(dataDir, { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '2001:db8:1::/64' }]] }),
  );
  assert.equal(result, {
    cniVersion: '1.1.0',
    ips: [
      { address: '10.1.2.2/24', gateway: '10.1.2.1' },
      { address: '2001:db8:1::2/64', gateway: '2001:db8:1::1' },
    ],
  });
  const store = `${dataDir}/net`;
  assert.equal(readdirSync(store).sort(), [
    '10.1.2.2',
    '2001:db8:1::2',
    'last_reserved_ip.0',
    'last_reserved_ip.1',
    'lock',
  ]);
  assert.is(readFileSync(`${store}/2001:db8:1::2`, 'latin1'), 'cont1\r\neth0');
  assert.is(readFileSync(`${store}/last_reserved_ip.1`, 'latin1'), '2001:db8:1::2');
  assert.equal(
    ['10.1.2.2', 'last_reserved_ip.0', 'lock', '.'].map((name) =>
      (lstatSync(`${store}/${name}`).mode & 0o777).toString(8),
    ),
    ['600', '600', '750', '755'],
  );
});

test('the default data folder has mode 0755', () => {
  add({
    cniVersion: '1.0.0',
    name: 'by-default',
    type: 'host-local',
    ipam: { type: 'host-local', subnet: '10.1.2.0/24' },
  });
  const store = '/var/lib/cni/networks/by-default';
  assert.is(lstatSync(store).mode & 0o777, 0o755);
  assert.ok(existsSync(`${store}/10.1.2.2`));
});

test('repeated ADD gives the same address, another interface another one; DEL releases only its own, any number of times', () => {
  const dataDir = newDataDir();
  const config = configFor(dataDir);
  assert.equal(addresses(add(config)), ['10.1.2.2/24']);
  assert.equal(addresses(add(config)), ['10.1.2.2/24']);
  assert.equal(addresses(add(config, { ...attachment, ifname: 'eth1' })), ['10.1.2.3/24']);
  succeed('host-local', 'DEL', { id: 'unknown' }, config);
  succeed('host-local', 'DEL', attachment, config);
  succeed('host-local', 'DEL', attachment, config);
  assert.equal(leases(dataDir), ['10.1.2.3']);
});

test('a released address is reused as late as possible', () => {
  const dataDir = newDataDir();
  const config = configFor(dataDir, { ranges: [[{ subnet: '10.1.2.0/29' }]] });
  add(config);
  succeed('host-local', 'DEL', attachment, config);
  assert.equal(addresses(add(config)), ['10.1.2.3/29']);
});

test('the exhaustion error names the set; a released address is assigned again', () => {
  const dataDir = newDataDir();
  const config = configFor(dataDir, { ranges: [[{ subnet: '10.7.0.0/30', rangeStart: '10.7.0.1' }]] });
  add(config);
  const error = fail('host-local', 'ADD', { ...attachment, id: 'second' }, config);
  assert.is(error.code, 999);
  assert.is(
    error.msg,
    'failed to allocate for range 0: no IP addresses available in range set: 10.7.0.1-10.7.0.2',
  );
  succeed('host-local', 'STATUS', { id: '' }, { ...config, cniVersion: '1.1.0' });
  succeed('host-local', 'DEL', attachment, config);
  assert.equal(addresses(add(config, { ...attachment, id: 'second' })), ['10.7.0.2/30']);
});

test('sets in order, ranges spill over, gateways are skipped, ipRanges come first', () => {
  const dataDir = newDataDir();
  const config = {
    ...configFor(dataDir, {
      subnet: '10.5.0.0/24',
      gateway: '192.0.2.1',
      ranges: [[{ subnet: '10.6.0.0/30' }, { subnet: '10.6.1.0/30', gateway: '10.6.1.2' }]],
    }),
    RuntimeConfig: { ipRanges: [[{ subnet: '10.4.0.0/24', rangeStart: '10.4.0.20' }]] },
  };
  assert.equal(addresses(add(config)), ['10.4.0.20/24', '10.5.0.1/24', '10.6.0.2/30']);
  const { ips } = add(config, { ...attachment, id: 'second' });
  assert.equal(ips[1], { address: '10.5.0.2/24', gateway: '192.0.2.1' });
  assert.equal(ips[2], { address: '10.6.1.1/30', gateway: '10.6.1.2' });
});

test('requested addresses from three places, and what cannot be served leaves nothing reserved', () => {
  const dataDir = newDataDir();
  const config = configFor(dataDir);
  assert.equal(addresses(add(config, { id: 'a', netns: '/none', args: 'IgnoreUnknown=1;IP=10.1.2.60' })), [
    '10.1.2.60/24',
  ]);
  assert.equal(
    addresses(add({ ...config, args: { cni: { ips: ['10.1.2.61/16'] } } }, { ...attachment, id: 'b' })),
    ['10.1.2.61/24'],
  );
  assert.equal(
    addresses(add({ ...config, runtimeConfig: { ips: ['10.1.2.62'] } }, { ...attachment, id: 'c' })),
    ['10.1.2.62/24'],
  );
  const refused = (args: string, more: object = {}, id = 'd'): string =>
    fail('host-local', 'ADD', { id, netns: '/none', args }, { ...config, ...more }).msg;
  assert.match(refused('IP=10.1.2.1'), "requested ip 10.1.2.1 is subnet's gateway");
  assert.match(refused('IP=10.1.2.60'), 'requested IP address 10.1.2.60 is not available in range set');
  assert.is(refused('IP=10.1.3.1'), 'failed to allocate all requested IPs: 10.1.3.1');
  assert.is(
    refused('IP=10.1.2.70', { runtimeConfig: { ips: ['10.1.2.71'] } }),
    'failed to allocate all requested IPs: 10.1.2.71',
  );
  assert.match(refused('IP=10.1.2.99', {}, 'a'), 'duplicate allocation is not allowed');
  assert.is(refused('ip=10.1.2.70'), 'ARGS: unknown args ["ip=10.1.2.70"]');
  assert.equal(leases(dataDir), ['10.1.2.60', '10.1.2.61', '10.1.2.62']);
});

test('what CNI_ARGS says to bridge does not keep an address from being given', () => {
  const args = 'MAC=02:00:00:00:00:07;IP=10.1.2.63;K8S_POD_NAME=x';
  assert.equal(addresses(add(configFor(newDataDir()), { ...attachment, args })), ['10.1.2.63/24']);
});

test('nothing but the result on stdout, and no word on stderr', () => {
  const { stdout, stderr, exitCode } = runPluginProcess('host-local', {
    command: 'ADD',
    env: variables(attachment),
    stdin: configFor(newDataDir()),
  });
  assert.equal([exitCode, stderr], [0, '']);
  assert.is(stdout, JSON.stringify(JSON.parse(stdout), null, 4));
});

test.run();
