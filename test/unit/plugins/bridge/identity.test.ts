import * as assert from 'uvu/assert';
import { unicastMac } from '../../../../plugins/bridge/config.ts';
import { attachmentOfAlias, identify, isZeroMac, randomMac } from '../../../../plugins/bridge/identity.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('bridge identity');
const one = { network: 'net1', containerId: 'cont1', ifname: 'eth0' };

test('names and MACs are derived from the attachment alone', () => {
  // A release that changed them would not find the pairs of an earlier one.
  const identity = identify(one);
  assert.equal(identity, identify({ ...one }));
  assert.is(identity.hostNames[0], 'veth6012800a');
  assert.is(identity.hostMac, 'fe:9c:9a:58:36:60');
  assert.is(identity.containerMac, 'a2:3f:75:b1:71:c0');
  assert.is(new Set(identity.hostNames).size, 4);
});

test('every part of the attachment counts', () => {
  const all = [
    one,
    { ...one, network: 'net2' },
    { ...one, containerId: 'cont2' },
    { ...one, ifname: 'eth1' },
  ];
  assert.is(new Set(all.map((each) => identify(each).hostNames[0])).size, 4);
  const shifted = identify({ network: 'net1c', containerId: 'ont1', ifname: 'eth0' });
  assert.is.not(shifted.hostNames[0], identify(one).hostNames[0]);
});

test('the alias reads back; other aliases name no attachment', () => {
  assert.equal(attachmentOfAlias(identify(one).alias), one);
  for (const alias of [undefined, '', 'weft:', 'weft:a/b', 'weft:a/b/c/d', 'uplink', 'weft:a//c']) {
    assert.is(attachmentOfAlias(alias), undefined);
  }
  assert.is(identify({ ...one, containerId: 'a'.repeat(250) }).alias, '');
});

test('MAC addresses in every form that the reference reads; only unicast ones', () => {
  for (const text of ['02:00:00:00:00:0A', '02-00-00-00-00-0a', '0200.0000.000a']) {
    assert.is(unicastMac(text), '02:00:00:00:00:0a');
  }
  for (const text of [
    '',
    '02:00:00:00:00',
    '03:00:00:00:00:01',
    '00:00:00:00:00:00',
    '02:00-00:00:00:01',
    'x',
  ]) {
    assert.is(unicastMac(text), undefined, text);
  }
  assert.ok(isZeroMac(undefined));
  assert.ok(isZeroMac('00:00:00:00:00:00'));
  assert.not.ok(isZeroMac('00:00:00:00:00:01'));
  for (let round = 0; round < 50; round++) {
    const mac = randomMac();
    assert.is(Number.parseInt(mac.slice(0, 2), 16) & 3, 2, mac);
    assert.is(unicastMac(mac), mac);
  }
});

test.run();
