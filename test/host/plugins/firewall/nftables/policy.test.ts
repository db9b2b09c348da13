import * as assert from 'uvu/assert';
import { call, scene } from '../scene.ts';
import { sh } from '../../../../support/variants.ts';
import { ask, generation, listed, OUTSIDE } from '../../../../support/port-host.ts';

const s = scene('ingress policies', 'nftables');
const QUICK = { patience: 700 };
const SAME = { ingressPolicy: 'same-bridge' };
const ISOLATED = { ingressPolicy: 'isolated' };

s.test.beforeEach(() => bridged(1));

/** Whether what stays within a bridge passes the host's firewall. */
function bridged(value: 0 | 1): void {
  sh(`sysctl -qw net.bridge.bridge-nf-call-iptables=${value} net.bridge.bridge-nf-call-ip6tables=${value}`);
}

s.test('open: everybody talks to everybody', () => {
  for (const container of [s.c1, s.c2, s.far]) call('ADD', container);
  assert.match(ask('c1', 'tcp', s.c2.ipv4, 80), /^two/);
  assert.match(ask('far', 'tcp', s.c1.ipv6, 80), /^one/);
  assert.match(ask('outside', 'udp', s.c1.ipv4, 80), /^one/);
});

s.test('same-bridge: neighbours talk, other bridges do not', () => {
  for (const container of [s.c1, s.c2, s.far]) call('ADD', container, SAME);
  assert.match(ask('c1', 'tcp', s.c2.ipv4, 80), /^two/);
  assert.match(ask('c1', 'udp', s.c2.ipv6, 80), /^two/);
  assert.is(ask('c1', 'tcp', s.far.ipv4, 80, QUICK), 'nothing');
  assert.is(ask('far', 'udp', s.c1.ipv6, 80, QUICK), 'nothing');
  assert.match(ask('far', 'tcp', OUTSIDE.ipv4, 80), /^out/);
  assert.match(ask('outside', 'tcp', s.far.ipv6, 80), /^far/, 'what no bridge sends is not isolated');
  for (const container of [s.c1, s.c2, s.far]) call('DEL', container, SAME);
  assert.is(ask('c1', 'tcp', s.far.ipv4, 80, QUICK), 'nothing', 'bridges may be in use by others');
});

s.test('isolated: containers of one bridge cannot reach each other', () => {
  for (const container of [s.c1, s.c2]) assert.is(call('ADD', container, ISOLATED), '');
  assert.is(ask('c1', 'tcp', s.c2.ipv4, 80, QUICK), 'nothing');
  assert.is(ask('c1', 'udp', s.c2.ipv6, 80, QUICK), 'nothing');
  assert.match(ask('c1', 'tcp', OUTSIDE.ipv4, 80), /^out/);
  assert.match(ask('far', 'tcp', s.c1.ipv4, 80), /^one/, 'a bridge without a policy is reachable');
});

s.test('isolated without bridge-nf-call-iptables warns and recommends portIsolation', () => {
  bridged(0);
  assert.match(
    call('ADD', s.c1, ISOLATED),
    /bridge br0: its containers are not isolated .* sysctl net\.bridge\.bridge-nf-call-iptables=1 net\.bridge\.bridge-nf-call-ip6tables=1, or set "portIsolation": true/,
  );
  assert.match(ask('c1', 'tcp', s.c2.ipv4, 80), /^two/, 'the warning is right');
  for (const id of ['c1', 'c2']) sh(`bridge link set dev v-${id} isolated on`);
  const prevResult = {
    ...s.c1.prevResult,
    interfaces: [{ name: 'br0' }, { name: 'v-c1' }, { name: 'eth0', sandbox: s.c1.netns }],
  };
  assert.is(call('ADD', s.c1, { ...ISOLATED, prevResult }), '');
  assert.is(ask('c1', 'tcp', s.c2.ipv4, 80, QUICK), 'nothing');
  for (const id of ['c1', 'c2']) sh(`bridge link set dev v-${id} isolated off`);
});

s.test('of two policies for one bridge the stricter one counts, in either order', () => {
  for (const order of [
    [SAME, ISOLATED],
    [ISOLATED, SAME],
  ]) {
    for (const policy of order) call('ADD', s.c1, policy);
    const before = generation();
    for (const policy of order) {
      call('ADD', s.c1, policy);
      call('CHECK', s.c1, policy);
    }
    assert.is(generation(), before);
    assert.ok(listed('map inet weft_firewall same_bridge').includes('elements = { "br0" . "br0" : drop }'));
    assert.is(ask('c1', 'tcp', s.c2.ipv4, 80, QUICK), 'nothing');
  }
});

s.test.run();
