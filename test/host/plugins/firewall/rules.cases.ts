import * as assert from 'uvu/assert';
import { rules, run, saved, sh, type Variant } from '../../../support/variants.ts';
import { accepts, add, ADMIN, call, chainOf, config, JUMP, own, policy, scene } from './scene.ts';
import { ask, bad, commits, good, OUTSIDE, resultOf } from '../../../support/port-host.ts';

/** The firewall executable on a real kernel with real traffic; the same for both variants of iptables. */
export function rulesCases(variant: Variant): void {
  const s = scene('rules and who gets through', variant);

  s.test('writes what the reference writes, in both families, and nothing the second time', () => {
    for (const expected of [['iptables', 'ip6tables'], []]) {
      const { result } = good('firewall', 'ADD', s.c1, config(s.c1));
      assert.equal(Object.keys(result as object).sort(), ['cniVersion', 'interfaces', 'ips']);
      assert.is(saved('filter'), golden([...own('10.88.0.11/32')]));
      assert.is(saved('filter', 'ipv6'), golden([...own('fd00:88::11/128')]));
      assert.equal(commits(), expected);
    }
    call('CHECK', s.c1);
    add(s.c2);
    assert.equal(accepts(), [...own('10.88.0.11/32'), ...own('10.88.0.12/32')]);
    call('DEL', s.c1);
    assert.is(saved('filter'), golden([...own('10.88.0.12/32')]));
    commits();
    call('DEL', s.c1);
    assert.equal(commits(), [], 'a second DEL has nothing to commit');
  });

  s.test('with FORWARD on DROP: out and back by our rules, in only by the operator’s', () => {
    policy('DROP');
    assert.is(ask('c1', 'tcp', OUTSIDE.ipv4, 80), 'nothing');
    add(s.c1);
    for (const protocol of ['tcp', 'udp'] as const) {
      assert.is(ask('c1', protocol, OUTSIDE.ipv4, 80), 'out 10.88.0.11');
      assert.is(ask('c1', protocol, OUTSIDE.ipv6, 80), 'out fd00:88::11');
    }
    // The outside has no way to 10.88.0.0/16 but the host, which is its router.
    assert.is(ask('outside', 'tcp', '10.88.0.11', 80, { patience: 700 }), 'nothing');
    for (const family of ['iptables', 'ip6tables'])
      run(family, '-A', 'NOMAD-ADMIN', '-o', 'br0', '-j', 'ACCEPT');
    assert.is(ask('outside', 'tcp', '10.88.0.11', 80), `one ${OUTSIDE.ipv4}`);
    assert.is(ask('outside', 'tcp', 'fd00:88::11', 80), `one ${OUTSIDE.ipv6}`);
    assert.is(ask('c2', 'tcp', OUTSIDE.ipv4, 80, { patience: 700 }), 'nothing', 'c2 has no rules');
  });

  s.test('keeps the operator’s chain and what is in it', () => {
    sh('iptables -N NOMAD-ADMIN');
    sh('iptables -A NOMAD-ADMIN -o nomad -d 172.26.64.0/20 -j ACCEPT');
    add(s.c1);
    assert.equal(chainOf('NOMAD-ADMIN'), ['-d 172.26.64.0/20 -o nomad -j ACCEPT']);
    add(s.c2, { iptablesAdminChainName: '' });
    assert.equal(chainOf('CNI-FORWARD').slice(0, 2), [ADMIN.replace('NOMAD', 'CNI'), ADMIN]);
    add(s.c1);
    assert.equal(chainOf('CNI-FORWARD').slice(0, 2), [ADMIN.replace('NOMAD', 'CNI'), ADMIN]);
  });

  s.test('its jump goes back to the head when others put theirs before it', () => {
    add(s.c1);
    sh('iptables -N DOCKER-USER');
    sh('iptables -I FORWARD 1 -j DOCKER-USER');
    add(s.c1);
    assert.equal(chainOf('FORWARD'), [JUMP, '-j DOCKER-USER']);
  });

  s.test('two addresses of one family, and an address without its family’s twin', () => {
    const prevResult = resultOf(s.c1.netns, ['10.88.0.11/16', '10.88.0.21/16']);
    good('firewall', 'ADD', s.c1, config(undefined, { prevResult }));
    assert.equal(accepts(), [...own('10.88.0.11/32'), ...own('10.88.0.21/32')]);
    assert.equal(rules('filter', 'ipv6'), []);
    good('firewall', 'DEL', s.c1, config(undefined, { prevResult }));
    assert.equal(accepts(), []);
  });

  s.test('ADD rejects invalid input before it changes anything', () => {
    const wrong: [object, number, RegExp][] = [
      [config(undefined), 7, /missing prevResult from earlier plugin/],
      [config(s.c1, { ingressPolicy: 'foo' }), 7, /unknown ingress policy: "foo"/],
      [config(s.c1, { iptablesAdminChainName: 'A B' }), 7, /iptablesAdminChainName" must be a chain name/],
      [
        config(s.c1, { iptablesAdminChainName: 'A'.repeat(29) }),
        7,
        /iptablesAdminChainName" must be a chain name/,
      ],
      [
        config(undefined, {
          ingressPolicy: 'same-bridge',
          prevResult: { cniVersion: '1.0.0', interfaces: [], ips: [] },
        }),
        7,
        /interface needs to be set for ingress policy "same-bridge", make sure to chain "firewall" plugin with "bridge"/,
      ],
    ];
    for (const [body, code, message] of wrong) {
      // CHECK only warns about an invalid configuration.
      for (const command of message.source.includes('prevResult') ? ['ADD', 'CHECK'] : ['ADD']) {
        const error = bad('firewall', command, s.c1, body);
        assert.is(error.code, code);
        assert.match(error.msg, message);
      }
    }
    assert.equal([...rules('filter'), ...rules('filter', 'ipv6')], []);
    assert.equal(commits(), []);
  });

  s.test('an unknown backend counts as none; old CNI versions work', () => {
    add(s.c1, { backend: 'auto' });
    assert.equal(accepts(), own('10.88.0.11/32'));
    const prevResult = { cniVersion: '0.2.0', ip4: { ip: '10.88.0.12/16' } };
    good('firewall', 'ADD', s.c2, { ...config(undefined, { prevResult }), cniVersion: '0.2.0' });
    assert.equal(accepts(), [...own('10.88.0.11/32'), ...own('10.88.0.12/32')]);
  });

  s.test.run();
}

function golden(rules: readonly string[]): string {
  return [
    '*filter',
    ':INPUT ACCEPT',
    ':FORWARD ACCEPT',
    ':OUTPUT ACCEPT',
    ':CNI-FORWARD -',
    ':NOMAD-ADMIN -',
    `-A FORWARD ${JUMP}`,
    `-A CNI-FORWARD ${ADMIN}`,
    ...rules.map((rule) => `-A CNI-FORWARD ${rule}`),
    'COMMIT',
  ].join('\n');
}
