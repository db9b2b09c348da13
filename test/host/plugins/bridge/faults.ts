import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { succeed } from '../../../support/plugin.ts';
import type { Scenario } from '../../../support/steps.ts';
import {
  addressesOf,
  cleanHost,
  DUAL,
  ip,
  ipam,
  leases,
  makeNamespace,
  natRules,
  network,
  nftRules,
} from './host.ts';

/** What the tests that disturb bridge at each of its steps share. */
export const c1 = { id: 'cont1', netns: '/run/netns/c1' };
export const config = network({ ipMasq: true, hairpinMode: true, ipam: ipam(DUAL) });
const withSpoofCheck = { ...config, macspoofchk: true, ipMasqBackend: 'nftables' };

export const VARIANTS = { iptables: config, 'nftables and spoofing check': withSpoofCheck };

export function scenario(command: 'ADD' | 'DEL', own: object): Scenario {
  return {
    plugin: 'bridge',
    command,
    attachment: c1,
    config: own,
    prepare: () => {
      makeNamespace('c1');
      if (command === 'DEL') succeed('bridge', 'ADD', c1, own);
    },
    clean: cleanHost,
  };
}

export function assertClean(): void {
  assert.equal(ip('link show type veth'), []);
  assert.equal(leases(), {});
  assert.equal([...natRules(4), ...natRules(6)], []);
  assert.equal(nftRules(), []);
}

/** As after an ADD that nothing disturbed. */
export function assertComplete(result: CniResult, own: object): void {
  assert.equal(addressesOf('eth0', 'c1'), ['10.88.0.2/16', 'fd00:88::2/64']);
  assert.is(ip('link show type veth').length, 1);
  assert.equal(leases(), { '10.88.0.2': 'cont1\r\neth0', 'fd00:88::2': 'cont1\r\neth0' });
  succeed('bridge', 'CHECK', c1, { ...own, prevResult: result });
}
