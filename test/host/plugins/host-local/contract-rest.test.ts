import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { fail, succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { add, addresses, attachment, configFor, leases, newDataDir } from './calls.ts';

const test = suite('host-local, the executable: configuration, release, state', { limit: 120 });

test('an invalid configuration: code 7, and no folder created', () => {
  const dataDir = newDataDir();
  const cases: [object, string][] = [
    [{ ranges: [] }, 'no IP ranges specified'],
    [{ subnet: 'foo' }, 'invalid CIDR address: foo'],
    [{ subnet: '10.1.2.3/24' }, 'the network address is 10.1.2.0'],
    [{ subnet: '10.1.2.0/31' }, 'Network 10.1.2.0/31 too small to allocate from'],
    [
      { ranges: [[{ subnet: '10.1.2.0/24', rangeStart: '10.1.3.1' }]] },
      'RangeStart 10.1.3.1 not in network 10.1.2.0/24',
    ],
    [{ ranges: [[{ subnet: '10.1.2.0/24', rangeEnd: '10.1.3.1' }]] }, 'RangeEnd 10.1.3.1 not in network'],
    [
      { ranges: [[{ subnet: '10.1.2.0/24', rangeStart: '10.1.2.20', rangeEnd: '10.1.2.10' }]] },
      'RangeStart 10.1.2.20 is after RangeEnd 10.1.2.10',
    ],
    [
      { ranges: [[{ subnet: '10.1.2.0/24' }, { subnet: '10.1.0.0/16' }]] },
      'subnets 10.1.2.1-10.1.2.254 and 10.1.0.1-10.1.255.254 overlap',
    ],
    [{ ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.1.2.0/24' }]] }, 'range set 0 overlaps with 1'],
    [{ ranges: [[{ subnet: '10.1.2.0/24' }, { subnet: 'fd00::/64' }]] }, 'mixed address families'],
    [{ ranges: [[]] }, 'empty range set'],
    [{ ranges: 'x' }, '"ipam.ranges" must be a list'],
  ];
  for (const [ipam, text] of cases) {
    const error = fail('host-local', 'ADD', attachment, configFor(dataDir, ipam));
    assert.match(error.msg, text);
    assert.is(error.code, 7, text);
  }
  const noIpam = fail('host-local', 'ADD', attachment, {
    cniVersion: '1.0.0',
    name: 'net',
    type: 'host-local',
  });
  assert.match(noIpam.msg, "IPAM config missing 'ipam' key");
  const old = configFor(dataDir, { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.1.3.0/24' }]] });
  assert.is(
    fail('host-local', 'ADD', attachment, { ...old, cniVersion: '0.2.0' }).msg,
    'CNI version 0.2.0 does not support more than 1 address per family',
  );
  assert.equal(readdirSync(dataDir), []);
});

test('routes and resolvConf end in the result; a missing file fails before anything is reserved', () => {
  const dataDir = newDataDir();
  writeFileSync(
    '/etc/test-resolv.conf',
    'nameserver 10.0.0.1\n# no\nsearch a b\ndomain d\noptions ndots:2\n',
  );
  const routes = [{ dst: '0.0.0.0/0' }, { dst: '10.9.0.0/16', gw: '10.1.2.9' }];
  const result = add({
    ...configFor(dataDir, { subnet: '10.1.2.0/24', routes, resolvConf: '/etc/test-resolv.conf' }),
    cniVersion: '0.4.0',
  });
  assert.equal(result, {
    cniVersion: '0.4.0',
    ips: [{ version: '4', address: '10.1.2.2/24', gateway: '10.1.2.1' }],
    routes,
    dns: { nameservers: ['10.0.0.1'], domain: 'd', search: ['a', 'b'], options: ['ndots:2'] },
  });
  const error = fail(
    'host-local',
    'ADD',
    { ...attachment, id: 'x' },
    configFor(dataDir, { subnet: '10.1.2.0/24', resolvConf: '/nope' }),
  );
  assert.is(error.msg, 'open /nope: no such file or directory');
  assert.equal(leases(dataDir), ['10.1.2.2']);
});

test('files of old releases, a newline at the end, nothing at all', () => {
  const dataDir = newDataDir();
  const config = configFor(dataDir);
  const store = `${dataDir}/net`;
  assert.match(
    fail('host-local', 'CHECK', attachment, config).msg,
    'host-local: Failed to find address added by container cont1',
  );
  mkdirSync(store);
  writeFileSync(`${store}/10.1.2.50`, 'cont1');
  succeed('host-local', 'CHECK', attachment, config);
  writeFileSync(`${store}/10.1.2.51`, 'cont1\r\neth0\n');
  succeed('host-local', 'DEL', attachment, config);
  assert.equal(leases(dataDir), ['10.1.2.50']);
  assert.equal(addresses(add(config)), ['10.1.2.50/24']);
  succeed('host-local', 'DEL', attachment, config);
  assert.equal(leases(dataDir), []);
});

test('CHECK notices that the address of the result belongs to another container', () => {
  const config = configFor(newDataDir());
  const prevResult = add(config);
  succeed('host-local', 'CHECK', attachment, { ...config, prevResult });
  succeed('host-local', 'DEL', attachment, config);
  add(config, { ...attachment, id: 'thief', args: 'IP=10.1.2.2' });
  add(config, { ...attachment, args: 'IP=10.1.2.3' });
  const error = fail('host-local', 'CHECK', attachment, { ...config, prevResult });
  assert.match(error.msg, '10.1.2.2 is not leased to it');
  assert.is(error.details, 'leased to thief, interface eth0');
});

test('the address of the first set is released when the second set fails; an empty file blocks nothing', () => {
  const dataDir = newDataDir();
  mkdirSync(`${dataDir}/net`);
  writeFileSync(`${dataDir}/net/10.1.2.2`, '');
  const config = configFor(dataDir, { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: '10.9.0.0/30' }]] });
  assert.equal(addresses(add(config)), ['10.1.2.2/24', '10.9.0.2/30']);
  assert.match(
    fail('host-local', 'ADD', { ...attachment, id: 'second' }, config).msg,
    'failed to allocate for range 1: no IP addresses available',
  );
  assert.equal(leases(dataDir), ['10.1.2.2', '10.9.0.2']);
});

test('STATUS and GC', () => {
  const dataDir = newDataDir();
  const config = configFor(dataDir);
  for (const id of ['a', 'b', 'c']) add(config, { ...attachment, id });
  const gc = (more: object): void => void succeed('host-local', 'GC', { id: '' }, { ...config, ...more });
  gc({
    'cni.dev/valid-attachments': [
      { containerID: 'a', ifname: 'eth0' },
      { containerID: 'b', ifname: 'eth0' },
    ],
  });
  assert.equal(leases(dataDir), ['10.1.2.2', '10.1.2.3']);
  gc({ 'cni.dev/attachments': [{ containerID: 'b', ifname: 'eth0' }] });
  assert.equal(leases(dataDir), ['10.1.2.3']);
  assert.ok(existsSync(`${dataDir}/net/last_reserved_ip.0`));
  succeed('host-local', 'STATUS', { id: '' }, config);
  const hopeless = {
    ...config,
    name: 'hopeless',
    ipam: { type: 'host-local', dataDir, subnet: '10.1.2.0/31' },
  };
  const error = fail('host-local', 'STATUS', { id: '' }, hopeless);
  assert.is(error.code, 7);
  assert.match(error.msg, 'too small to allocate from');
  succeed('host-local', 'DEL', attachment, hopeless);
});

test.run();
