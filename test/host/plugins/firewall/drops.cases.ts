import * as assert from 'uvu/assert';
import {
  commandsIn,
  dockerRules,
  forwardPolicy,
  inetTable,
  linesOf,
  ufwRules,
} from '../../../support/dropping-rules.ts';
import { ask, generation, OUTSIDE } from '../../../support/port-host.ts';
import { run, saved, sh } from '../../../support/variants.ts';
import { add, call, scene, type Filter } from './scene.ts';

/** Other programs' rules that drop what the container sends: a warning where packets are lost, none where they arrive. */
export function dropsCases(filter: Filter): void {
  const s = scene('rules of other programs that drop', filter);
  const otherVariant = filter === 'legacy' ? 'iptables-nft' : 'iptables-legacy';
  s.test.beforeEach(() => {
    sh(`${otherVariant} -P FORWARD ACCEPT`);
    sh(`${otherVariant} -F`);
  });

  /** Whether what c1 sends outside is answered: by IPv4, by IPv6. */
  const arrives = (): boolean[] =>
    [OUTSIDE.ipv4, OUTSIDE.ipv6].map((address) =>
      ask('c1', 'tcp', address, 80, { patience: 700 }).startsWith('out'),
    );

  /** The warning's own commands end both the loss and the warning. */
  const assertRemedy = (log: string): void => {
    assert.equal(arrives(), [false, false], log);
    for (const command of commandsIn(log)) sh(command);
    assert.is(add(s.c1), '');
    assert.equal(arrives(), [true, true]);
  };

  s.test('nothing that drops, or only other traffic: no warning', () => {
    assert.is(add(s.c1), '');
    inetTable('accept', 'tcp dport 25 drop', 'ct state invalid drop', 'iifname "br1" drop');
    run('nft', 'add chain inet mine input { type filter hook input priority 0; policy drop; }');
    run('nft', 'add rule inet mine input iifname { "br0", "up0", "lo" } accept');
    assert.is(add(s.c1), '');
    assert.equal(arrives(), [true, true]);
  });

  for (const [title, rules] of [
    ['policy DROP', () => forwardPolicy('DROP')],
    ['the rules of Docker', dockerRules],
    ['the rules of ufw', ufwRules],
  ] as const) {
    s.test(`${title}: the iptables back end accepts the traffic, the nftables back end warns`, () => {
      rules();
      const log = add(s.c1);
      if (filter !== 'nftables') {
        assert.is(log, '');
        assert.equal(arrives(), [true, true]);
        return;
      }
      const replies = title.endsWith('ufw') ? '' : ' and 1 more';
      assert.equal(
        linesOf(log).map((line) => line.replace(/; accept with.*/, '')),
        [
          `chain FORWARD of iptables drops tcp packets from ${s.c1.ipv4}${replies} (policy drop)`,
          `chain FORWARD of ip6tables drops tcp packets from ${s.c1.ipv6}${replies} (policy drop)`,
        ],
      );
      const before = [generation(), saved('filter')];
      assert.is(call('CHECK', s.c1), '', 'CHECK is about this plugin’s own rules');
      assert.equal([generation(), saved('filter')], before);
      assertRemedy(log);
    });
  }

  s.test('a table of the operator’s own with policy drop: a warning with commands that help', () => {
    inetTable('drop');
    const log = add(s.c1);
    assert.equal(linesOf(log), [
      'chain passing of table inet mine drops tcp packets from 10.88.0.11 and 3 more (policy drop); accept with: ' +
        'nft insert rule inet mine passing ip saddr 10.88.0.0/16 accept; ' +
        'nft insert rule inet mine passing ip daddr 10.88.0.0/16 ct state established,related accept; ' +
        'nft insert rule inet mine passing ip6 saddr fd00:88::/64 accept; ' +
        'nft insert rule inet mine passing ip6 daddr fd00:88::/64 ct state established,related accept',
    ]);
    assertRemedy(log);
  });

  s.test('a rule of that table that rejects: the warning names it', () => {
    inetTable('accept', 'iifname "br0" reject with icmpx admin-prohibited');
    const log = add(s.c1);
    assert.match(
      log,
      /chain passing of table inet mine drops tcp packets from 10\.88\.0\.11 and 1 more \(rule with handle \d+ of chain passing\)/,
    );
    assert.is(add(s.far), '', 'the rule is not about br1');
    assertRemedy(log);
  });

  s.test('the other variant of iptables drops: a warning with its program', () => {
    sh(`${otherVariant} -P FORWARD DROP`);
    const log = add(s.c1);
    assert.equal(linesOf(log), [
      `chain FORWARD of ${otherVariant} drops tcp packets from 10.88.0.11 and 1 more (policy drop); accept with: ` +
        `${otherVariant} -I FORWARD -s 10.88.0.0/16 -j ACCEPT; ` +
        `${otherVariant} -I FORWARD -d 10.88.0.0/16 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
    ]);
    assert.equal(arrives(), [false, true]);
    for (const command of commandsIn(log)) sh(command);
    assert.is(add(s.c1), '');
    assert.equal(arrives(), [true, true]);
  });

  if (filter === 'nftables') {
    s.test('only replies are dropped: a warning about replies', () => {
      forwardPolicy('DROP', ['iptables']);
      sh('iptables -A FORWARD -i br0 -j ACCEPT');
      assert.match(
        linesOf(add(s.c1))[0] ?? '',
        /^chain FORWARD of iptables drops tcp replies to 10\.88\.0\.11 \(policy drop\)/,
      );
      assert.equal(arrives(), [false, true]);
    });

    s.test(
      'rules in the operator’s chain of iptables have no effect: a warning, until a rule jumps there',
      () => {
        sh('iptables -N NOMAD-ADMIN');
        sh('iptables -A NOMAD-ADMIN -o br0 -d 10.88.0.0/16 -j ACCEPT');
        assert.is(add(s.c1), '', 'Nomad’s own rule accepts, which changes nothing here');
        sh(`iptables -A NOMAD-ADMIN -d ${OUTSIDE.ipv4} -j DROP`);
        assert.match(
          add(s.c1),
          /chain NOMAD-ADMIN of iptables: its rules have no effect .*: iptables -I FORWARD -j NOMAD-ADMIN/,
        );
        assert.equal(arrives(), [true, true]);
        sh('iptables -I FORWARD -j NOMAD-ADMIN');
        assert.not.match(add(s.c1), /no effect/);
        assert.equal(arrives(), [false, true]);
      },
    );
  }

  s.test.run();
}
