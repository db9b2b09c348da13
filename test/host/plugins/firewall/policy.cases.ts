import * as assert from 'uvu/assert';
import { saved, sh, type Variant } from '../../../support/variants.ts';
import { add, call, chainOf, JUMP, scene } from './scene.ts';
import { ask, commits, OUTSIDE } from '../../../support/port-host.ts';

/** The firewall executable on a real kernel with real traffic; the same for both variants of iptables. */
export function policyCases(variant: Variant): void {
  const s = scene('ingress policies', variant);

  s.test('same-bridge: neighbours talk, other bridges do not', () => {
    const policed = { ingressPolicy: 'same-bridge' };
    const comment = '-m comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge)"';
    for (const container of [s.c1, s.c2, s.far]) add(container, policed);
    commits();
    for (const container of [s.far, s.c1, s.c2]) add(container, policed);
    assert.equal(commits(), []);
    assert.equal(chainOf('FORWARD'), [`${comment} -j CNI-ISOLATION-STAGE-1`, JUMP]);
    assert.equal(chainOf('CNI-ISOLATION-STAGE-1'), [
      `-i br1 ! -o br1 ${comment} -j CNI-ISOLATION-STAGE-2`,
      `-i br0 ! -o br0 ${comment} -j CNI-ISOLATION-STAGE-2`,
      `${comment} -j RETURN`,
    ]);
    assert.equal(chainOf('CNI-ISOLATION-STAGE-2'), [
      `-o br1 ${comment} -j DROP`,
      `-o br0 ${comment} -j DROP`,
      `${comment} -j RETURN`,
    ]);
    assert.equal(chainOf('CNI-ISOLATION-STAGE-2', 'ipv6'), chainOf('CNI-ISOLATION-STAGE-2'));
    assert.match(ask('c1', 'tcp', s.c2.ipv4, 80), /^two/);
    assert.is(ask('c1', 'tcp', s.far.ipv4, 80, { patience: 700 }), 'nothing');
    assert.is(ask('far', 'udp', s.c1.ipv6, 80, { patience: 700 }), 'nothing');
    assert.match(ask('far', 'tcp', OUTSIDE.ipv4, 80), /^out/);
    assert.match(ask('outside', 'tcp', s.far.ipv4, 80), /^far/, 'what no bridge sends is not isolated');
    for (const container of [s.c1, s.c2, s.far]) call('DEL', container, policed);
    assert.is(chainOf('CNI-ISOLATION-STAGE-1').length, 3, 'bridges may be in use by others');
  });

  s.test('isolated: containers of one bridge cannot reach each other', () => {
    sh('sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1');
    const policed = { ingressPolicy: 'isolated' };
    const comment = '-m comment --comment "CNI firewall plugin rules (ingressPolicy: isolated)"';
    for (const container of [s.c1, s.c2]) add(container, policed);
    assert.equal(chainOf('CNI-ISOLATION-STAGE-1'), [
      `-i br0 -o br0 ${comment} -j DROP`,
      `-i br0 ! -o br0 ${comment} -j CNI-ISOLATION-STAGE-2`,
      `${comment} -j RETURN`,
    ]);
    assert.is(ask('c1', 'tcp', s.c2.ipv4, 80, { patience: 700 }), 'nothing');
    assert.is(ask('c1', 'tcp', s.c2.ipv6, 80, { patience: 700 }), 'nothing');
    assert.match(ask('c1', 'tcp', OUTSIDE.ipv4, 80), /^out/);
  });

  s.test('networks with and without a policy on one host do not push each other from the head', () => {
    add(s.c1, { ingressPolicy: 'same-bridge' });
    add(s.far, { ingressPolicy: 'isolated' });
    const before = saved('filter');
    commits();
    for (const round of [1, 2]) {
      add(s.c2);
      add(s.c1, { ingressPolicy: 'same-bridge' });
      add(s.far, { ingressPolicy: 'isolated' });
      assert.is(commits().length, round === 1 ? 2 : 0);
    }
    const isNew = (line: string): boolean => line.includes('10.88.0.12');
    assert.equal(
      saved('filter')
        .split('\n')
        .filter((line) => !isNew(line)),
      before.split('\n'),
    );
  });

  s.test.run();
}
