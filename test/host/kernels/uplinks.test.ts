/** Uplinks of kinds that not every kernel has. `npm run vm` runs this on kernels of Debian's releases, which have them. */
import * as assert from 'uvu/assert';
import type { CniResult } from '../../../shared/cni/results.ts';
import { succeed } from '../../support/plugin.ts';
import { suite } from '../../support/suite.ts';
import { cleanHost, makeNamespace, natRules, network, sh, succeeds } from '../plugins/bridge/host.ts';

const test = suite('bridge: uplinks by kind', { limit: 60 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const c1 = { id: 'cont1', netns: '/run/netns/c1' };
const config = network({ cniVersion: '1.1.0', ipMasq: true, mtu: 'auto' });

/** @param use makes the host's default route, MTU 1400, over such a link */
function uplink(kind: string, options: string, use: () => void): void {
  if (!succeeds(`ip link add weftprobe type ${kind} ${options} && ip link del weftprobe`)) {
    test.skip(`the uplink is a ${kind} device`, `this kernel has no ${kind} devices`);
    return;
  }
  test(`the uplink is a ${kind} device: mtu "auto", traffic with masquerading, CHECK, DEL`, () => {
    makeNamespace('c1');
    use();
    const result = succeed('bridge', 'ADD', c1, config) as CniResult;
    assert.is(result.interfaces[2]?.mtu, 1400);
    succeed('bridge', 'CHECK', c1, { ...config, prevResult: result });
    sh('ip netns exec c1 ping -c 1 -W 5 192.0.2.9');
    succeed('bridge', 'DEL', c1, config);
    assert.equal(natRules(), []);
    sh('ip link del up0; ip netns del outside 2>/dev/null || true; ip link del vrf0 2>/dev/null || true');
  });
}

uplink('dummy', '', () =>
  sh(`ip link add up0 mtu 1400 type dummy; ip addr add 192.0.2.9/24 dev up0; ip link set up0 up
    ip route add default via 192.0.2.1`),
);

// The uplink's own table holds its routes; the main table leads to it, and the uplink's table back to the containers.
uplink('vrf', 'table 10', () =>
  sh(`ip link add vrf0 type vrf table 10; ip link set vrf0 up
    ip netns add outside; ip link add up0 mtu 1400 type veth peer name up1 netns outside
    ip link set up0 master vrf0; ip addr add 192.0.2.1/24 dev up0; ip link set up0 up
    ip -n outside addr add 192.0.2.9/24 dev up1; ip -n outside link set up1 mtu 1400 up
    ip route add default via 192.0.2.9 dev up0
    sysctl -qw net.ipv4.ip_forward=1
    ip rule add pref 2000 iif vrf0 lookup main`),
);

test.run();
