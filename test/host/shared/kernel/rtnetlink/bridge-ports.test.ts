import * as assert from 'uvu/assert';
import { createBridge, createVeth, linkByName } from '../../../../../shared/kernel/rtnetlink/links.ts';
import {
  addPortVlans,
  deletePortVlans,
  portVlans,
  setBridgePort,
} from '../../../../../shared/kernel/rtnetlink/bridge-ports.ts';
import { Rtnetlink } from '../../../../../shared/kernel/rtnetlink/rtnetlink.ts';
import { suite } from '../../../../support/suite.ts';
import { ip, kernelError } from '../../../../support/kernel.ts';

const test = suite('bridge ports');
const own = Rtnetlink.open();

function indexOf(name: string): number {
  const link = linkByName(own, name);
  if (link === undefined) throw new Error(`no link ${name}`);
  return link.index;
}

test.before(() => {
  createBridge(own, { name: 'br0', up: true });
  createVeth(own, { name: 'port', master: indexOf('br0'), up: true, peer: { name: 'peer' } });
});

test('hairpin and isolation are set separately and together, as bridge(8) shows', () => {
  const port = indexOf('port');
  const seen = (): unknown[] => {
    const [link] = ip('link', 'show', 'port');
    const info = link?.['linkinfo'] as { info_slave_data?: Record<string, unknown> } | undefined;
    return [info?.info_slave_data?.['hairpin'], info?.info_slave_data?.['isolated']];
  };
  for (const [change, expected] of [
    [{ hairpin: true }, [true, false]],
    [{ isolated: true }, [true, true]],
    [{ hairpin: false }, [false, true]],
    [{ hairpin: true, isolated: false }, [true, false]],
    [{}, [true, false]],
  ] as const) {
    setBridgePort(own, port, change);
    assert.equal(seen(), expected);
    const ours = linkByName(own, 'port')?.port;
    assert.equal([ours?.hairpin, ours?.isolated], expected);
  }
});

test('a link that is not a bridge port is refused', () => {
  kernelError('EOPNOTSUPP', () => setBridgePort(own, indexOf('peer'), { hairpin: true }));
  kernelError('ENODEV', () => setBridgePort(own, 4711, { hairpin: true }));
});

/** CONFIG_BRIDGE_VLAN_FILTERING decides; without it only the bytes are tested (requests.test.ts). */
function kernelHasVlanFiltering(): boolean {
  try {
    createBridge(own, { name: 'br-vlan', vlanFiltering: true });
    return true;
  } catch {
    return false;
  }
}

const hasVlans = kernelHasVlanFiltering();

if (hasVlans) {
  test('port VLANs are added, listed and deleted', () => {
    createVeth(own, { name: 'vport', master: indexOf('br-vlan'), peer: { name: 'vpeer' } });
    const port = indexOf('vport');
    deletePortVlans(own, port, portVlans(own, port));
    addPortVlans(own, port, [
      { vid: 100, pvid: true, untagged: true },
      { vid: 200, lastVid: 210 },
    ]);
    assert.equal(portVlans(own, port), [
      { vid: 100, pvid: true, untagged: true },
      { vid: 200, lastVid: 210 },
    ]);
    deletePortVlans(own, port, [{ vid: 201, lastVid: 210 }]);
    assert.equal(portVlans(own, port), [{ vid: 100, pvid: true, untagged: true }, { vid: 200 }]);
  });
} else {
  test.skip('port VLANs are added, listed and deleted', 'this kernel lacks CONFIG_BRIDGE_VLAN_FILTERING');
  test('port VLANs on a kernel without them are refused, not ignored', () => {
    kernelError('EOPNOTSUPP', () => addPortVlans(own, indexOf('port'), [{ vid: 100 }]));
    assert.equal(portVlans(own, indexOf('port')), []);
  });
}

test.run();
