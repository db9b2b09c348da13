import * as assert from 'uvu/assert';
import { configure as configureBridge, type BridgeConfig } from '../../../../plugins/bridge/config.ts';
import { requireSettings, usableSettings } from '../../../../shared/config/decode.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('bridge configuration');

const configure = (raw: Record<string, unknown>): BridgeConfig =>
  requireSettings('bridge', configureBridge(raw));

test("every default is the reference's", () => {
  const { raw, ...config } = configure({});
  assert.equal(raw, {});
  assert.equal(config, {
    bridge: 'cni0',
    isGateway: false,
    isDefaultGateway: false,
    forceAddress: false,
    allowUplinkOverlap: false,
    ipMasq: false,
    ipMasqBackend: undefined,
    mtu: undefined,
    hairpinMode: false,
    promiscMode: false,
    vlan: 0,
    vlanTrunk: undefined,
    preserveDefaultVlan: false,
    macspoofchk: false,
    enabledad: false,
    disableContainerInterface: false,
    portIsolation: false,
    mac: undefined,
    ipamType: '',
    dns: undefined,
  });
});

test('keys are case-insensitive, null counts as absent, unknown keys are ignored', () => {
  const config = configure({
    BRIDGE: 'x',
    IsDefaultGateway: true,
    mtu: null,
    ipam: { Type: 'static' },
    foo: 1,
  });
  assert.equal(
    [config.bridge, config.isGateway, config.mtu, config.ipamType],
    ['x', true, undefined, 'static'],
  );
});

test('all problems are reported together, with key and value', () => {
  const { code, message } = thrown(() =>
    configure({
      bridge: 'a name',
      isGateway: 'yes',
      ipMasqBackend: 'foo',
      mtu: 70_000,
      vlan: 4095,
      vlanTrunk: [{ minID: 5, maxID: 3 }, { id: 0 }, { minID: 4 }, { maxID: 4 }],
      runtimeConfig: { mac: 'zz' },
    }),
  );
  assert.is(code, 7);
  for (const part of [
    /bridge/,
    /isGateway/,
    /unknown ipmasq backend "foo"/,
    /mtu/,
    /invalid VLAN ID 4095 \(must be between 0 and 4094\)/,
    /minID is greater than maxID in trunk parameter/,
    /incorrect trunk id parameter/,
    /minID and maxID should be configured simultaneously, maxID is missing/,
    /minID and maxID should be configured simultaneously, minID is missing/,
    /invalid MAC address/,
  ]) {
    assert.match(message, part);
  }
});

test('names that the kernel would refuse or rewrite are refused', () => {
  for (const bridge of ['', '.', '..', 'a/b', 'a:b', 'a b', 'br%d', 'sixteen-letters-']) {
    assert.match(thrown(() => configure({ bridge })).message, /bridge/, JSON.stringify(bridge));
  }
  assert.is(configure({ bridge: 'fifteen-letters' }).bridge, 'fifteen-letters');
});

test('the gateway of a VLAN must have a name that fits', () => {
  const vlan = { bridge: 'twelve-chars', vlan: 1000, isGateway: true };
  assert.match(thrown(() => configure(vlan)).message, /"twelve-chars\.1000", longer than 15 bytes/);
  assert.is(configure({ ...vlan, isGateway: false }).vlan, 1000);
});

test("mtu: a number, auto, 0 for the kernel's own", () => {
  assert.is(configure({ mtu: 0 }).mtu, undefined);
  assert.is(configure({ mtu: 'auto' }).mtu, 'auto');
  assert.is(configure({ mtu: 68 }).mtu, 68);
  for (const mtu of [67, -1, 1.5, '1500']) assert.is(thrown(() => configure({ mtu })).code, 7, String(mtu));
});

test('a trunk is every VLAN once, ascending', () => {
  const vlanTrunk = [{ id: 30 }, { minID: 10, maxID: 12 }, { minID: 11, maxID: 13, id: 5 }];
  assert.equal(configure({ vlanTrunk }).vlanTrunk, [5, 10, 11, 12, 13, 30]);
  assert.equal(configure({ vlanTrunk: [] }).vlanTrunk, []);
});

test('an empty backend, an empty MAC and an empty dns say nothing; an empty list of dns says "none"', () => {
  assert.is(configure({ ipMasqBackend: '' }).ipMasqBackend, undefined);
  assert.is(
    configure({ runtimeConfig: { mac: '' }, args: { cni: { mac: '0200.0000.0001' } } }).mac,
    '02:00:00:00:00:01',
  );
  assert.is(configure({ dns: {} }).dns, undefined);
  assert.is(configure({ dns: { domain: '' } }).dns, undefined);
  assert.equal(configure({ dns: { nameservers: [] } }).dns, { nameservers: [] });
});

test('a NUL in the name of the bridge is invalid input', () => {
  assert.is(thrown(() => configure({ bridge: 'a\0b' })).code, 7);
});

test('DEL gets what is valid of an invalid configuration', () => {
  const raw = { bridge: 'br0', vlan: 5000, ipMasq: 'yes', mtu: '1500', ipam: { type: 'host-local' } };
  const { bridge, vlan, ipMasq, macspoofchk, ipamType } = usableSettings(configureBridge(raw));
  assert.equal(
    [bridge, vlan, ipMasq, macspoofchk, ipamType],
    ['br0', undefined, undefined, false, 'host-local'],
  );
});

test.run();
