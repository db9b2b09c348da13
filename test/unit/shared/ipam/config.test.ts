import * as assert from 'uvu/assert';
import { formatAddress } from '../../../../shared/net/address.ts';
import { DEFAULT_DATA_DIR } from '../../../../shared/attachments/lease-files.ts';
import { requireSettings, usableSettings } from '../../../../shared/config/decode.ts';
import {
  configureIpam as configureRaw,
  requestedPerSet,
  type IpamConfig,
} from '../../../../shared/ipam/config.ts';
import { describeSet } from '../../../../shared/ipam/ranges.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';
import { callOn, type CallOptions } from '../../../host/shared/ipam/calls.ts';

const test = suite('host-local configuration');

const configureIpam = (raw: Record<string, unknown>): IpamConfig =>
  requireSettings('host-local', configureRaw(raw));

const pool = { ranges: [[{ subnet: '10.1.2.0/24' }], [{ subnet: 'fd00::/64' }]] };

test('range sets in order: runtimeConfig.ipRanges, the single range, ranges', () => {
  const config = configureIpam({
    ipam: { subnet: '10.2.0.0/24', rangeStart: '10.2.0.9', ranges: [[{ subnet: '10.3.0.0/24' }]] },
    runtimeConfig: { ipRanges: [[{ subnet: '10.1.0.0/24' }, { subnet: '10.1.1.0/24' }]] },
  });
  assert.equal(config.rangeSets.map(describeSet), [
    '10.1.0.1-10.1.0.254,10.1.1.1-10.1.1.254',
    '10.2.0.9-10.2.0.254',
    '10.3.0.1-10.3.0.254',
  ]);
});

test('keys in any case and nulls, as Go reads them', () => {
  const config = configureIpam({
    IPAM: { DATADIR: '/x', Subnet: '10.2.0.0/24', rangestart: null, RESOLVCONF: '/etc/r', Routes: null },
  });
  assert.is(config.dataDir, '/x');
  assert.is(config.resolvConf, '/etc/r');
  assert.equal(config.rangeSets.map(describeSet), ['10.2.0.1-10.2.0.254']);
});

test('the default store, also for an empty dataDir', () => {
  assert.is(configureIpam({ ipam: pool }).dataDir, DEFAULT_DATA_DIR);
  assert.is(configureIpam({ ipam: { ...pool, dataDir: '' } }).dataDir, '/var/lib/cni/networks');
});

test('routes come out canonical, with what 1.1.0 knows of them', () => {
  const routes = [
    { dst: '0.0.0.0/0' },
    { dst: '10.9.9.9/8', gw: '' },
    {
      dst: '2001:DB8::/32',
      gw: 'FD00::1',
      mtu: 1400,
      advmss: 1300,
      priority: 5,
      table: 7,
      scope: 0,
      other: 1,
    },
  ];
  assert.equal(configureIpam({ ipam: { ...pool, routes } }).routes, [
    { dst: '0.0.0.0/0' },
    { dst: '10.9.9.9/8' },
    { dst: '2001:db8::/32', gw: 'fd00::1', mtu: 1400, advmss: 1300, priority: 5, table: 7, scope: 0 },
  ]);
});

test('every mistake in the pool is reported, and none keeps DEL from the store', () => {
  const broken = {
    ipam: {
      dataDir: '/d',
      ranges: [[{ subnet: '10.1.2.3/24' }]],
      routes: [{ dst: 'x' }, { dst: '::/0', gw: 'y' }],
    },
    runtimeConfig: { ips: ['10.1.2.300'] },
  };
  assert.equal(usableSettings(configureRaw(broken)), { dataDir: '/d' });
  const error = thrown(() => configureIpam(broken));
  assert.is(error.code, 7);
  for (const part of [
    'invalid range set 0',
    'host bits',
    'invalid IP address: 10.1.2.300',
    'invalid CIDR address: x',
    'invalid IP address: y',
  ])
    assert.match(error.message, part);
  assert.match(thrown(() => configureIpam({})).message, "IPAM config missing 'ipam' key");
  assert.match(thrown(() => configureIpam({ ipam: {} })).message, 'no IP ranges specified');
  assert.match(
    thrown(() => configureIpam({ ipam: { ranges: [{}] } })).message,
    /"ipam\.ranges\[0\]" must be a list/,
  );
});

test('an invalid dataDir or ipam section leaves DEL no data directory: it looks in the usual ones', () => {
  for (const raw of [{ ipam: { ...pool, dataDir: 5 } }, { ipam: 'host-local' }, { ipam: [pool] }]) {
    assert.is(thrown(() => configureIpam(raw)).code, 7);
    assert.equal(usableSettings(configureRaw(raw)), {});
  }
});

test('an error fits on a screen, and 90,000 ranges or addresses take no time', () => {
  const range = { subnet: '10.1.2.0/24' };
  const many = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);
  const cases: [object, string][] = [
    [{ ipam: { ranges: [many(300, range)] } }, 'and 287 more'],
    [{ ipam: { ranges: many(300, [range]) } }, 'and 287 more'],
    [{ ipam: { ranges: [many(90_000, range)] } }, '90000 ranges; at most 1000 are supported'],
    [
      { ipam: { ranges: [[range]] }, runtimeConfig: { ips: many(90_000, '10.1.2.5') } },
      '90000 requested IP addresses',
    ],
    [{ ipam: { ranges: [[range]], routes: many(900, { dst: 'x' }) } }, 'and 888 more'],
  ];
  for (const [raw, text] of cases) {
    const { message } = thrown(() => configureIpam({ ...raw }));
    assert.match(message, text);
    assert.ok(message.length < 3000, text);
  }
});

test('requested addresses: CNI_ARGS, args.cni.ips and runtimeConfig.ips add up, one for each set', () => {
  assert.equal(requested({}), [undefined, undefined]);
  assert.equal(requested({ cniArgs: 'IP=10.1.2.60' }), ['10.1.2.60', undefined]);
  assert.equal(requested({ cniArgs: 'IP=10.1.2.60/16;MAC=00:11:22:33:44:55' }), ['10.1.2.60', undefined]);
  assert.equal(requested({ cniArgs: 'IP=fd00::60,10.1.2.60' }), ['10.1.2.60', 'fd00::60']);
  assert.equal(requested({ args: { cni: { ips: ['fd00::9/64'] } }, cniArgs: 'IP=10.1.2.60' }), [
    '10.1.2.60',
    'fd00::9',
  ]);
  assert.equal(
    requested({ args: { cni: { ips: ['10.1.2.9'] } }, runtimeConfig: { ips: ['fd00::9/64', '10.1.2.9'] } }),
    ['10.1.2.9', 'fd00::9'],
  );
});

test('requests that no set can serve, and unknown CNI_ARGS', () => {
  const two = thrown(() => requested({ cniArgs: 'IP=10.1.2.60', runtimeConfig: { ips: ['10.1.2.61'] } }));
  assert.is(two.message, 'failed to allocate all requested IPs: 10.1.2.61');
  assert.match(two.details ?? '', 'same set');
  const outside = thrown(() => requested({ runtimeConfig: { ips: ['10.1.3.1', '10.1.3.2'] } }));
  assert.is(outside.message, 'failed to allocate all requested IPs: 10.1.3.1, 10.1.3.2');
  assert.match(thrown(() => requested({ cniArgs: 'IP=zz' })).message, 'invalid IP address: zz');
  assert.is(thrown(() => requested({ cniArgs: 'FOO=1' })).message, 'ARGS: unknown args ["FOO=1"]');
  assert.equal(requested({ cniArgs: 'FOO=1;IgnoreUnknown=true' }), [undefined, undefined]);
});

test.run();

function requested(options: CallOptions): (string | undefined)[] {
  const perSet = requestedPerSet(callOn('/d', { ipam: pool, ...options }));
  return perSet.map((address) => (address === undefined ? undefined : formatAddress(address)));
}
