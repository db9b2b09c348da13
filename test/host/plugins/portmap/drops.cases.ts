import * as assert from 'uvu/assert';
import {
  commandsIn,
  dockerRules,
  forwardPolicy,
  inetTable,
  linesOf,
  ufwRules,
} from '../../../support/dropping-rules.ts';
import { ask, good, HOST, OUTSIDE } from '../../../support/port-host.ts';
import { add, scene, tcp, udp, type Filter } from '../../../support/portmap-scene.ts';
import { clear, run, sh } from '../../../support/variants.ts';

/** Other programs' rules that drop connections to published ports: a warning where they are lost, none where they arrive. */
export function dropsCases(filter: Filter): void {
  const s = scene('rules of other programs that drop', filter);
  s.test.beforeEach(() => {
    forwardPolicy('ACCEPT');
    clear('filter');
    run('nft', 'add table inet mine');
    run('nft', 'delete table inet mine');
  });

  /** Whether a client outside reaches the published port: by IPv4, by IPv6. */
  const arrives = (port = 9002): boolean[] =>
    [HOST.ipv4, HOST.ipv6].map((address) =>
      ask('outside', 'tcp', address, port, { patience: 700 }).startsWith('one'),
    );

  const assertRemedy = (log: string): void => {
    assert.equal(arrives(), [false, false], log);
    for (const command of commandsIn(log)) sh(command);
    assert.is(add(s.c1, [tcp(9002)]).log, '');
    assert.equal(arrives(), [true, true]);
  };

  s.test('nothing that drops, or only other traffic: no warning', () => {
    assert.is(add(s.c1, [tcp(9002), udp(9002)]).log, '');
    sh('iptables -A FORWARD -p tcp -m tcp --dport 9002 -j DROP');
    inetTable('accept', 'tcp dport 25 drop', 'iifname "docker0" drop');
    assert.is(add(s.c1, [tcp(9002), udp(9002)]).log, '', 'rules see the port of the container');
    assert.equal(arrives(), [true, true]);
  });

  for (const [title, rules] of [
    ['policy DROP', () => forwardPolicy('DROP')],
    ['the rules of Docker', dockerRules],
    ['the rules of ufw', ufwRules],
  ] as const) {
    s.test(`${title}: a warning with commands that help`, () => {
      rules();
      const { log } = add(s.c1, [tcp(9002), udp(9002, 81)]);
      assert.equal(linesOf(log), [
        'chain FORWARD of iptables drops tcp packets to 10.88.0.11:80 and 1 more (policy drop); accept with: ' +
          'iptables -I FORWARD -m conntrack --ctstate DNAT --ctreplsrc 10.88.0.0/16 -j ACCEPT',
        'chain FORWARD of ip6tables drops tcp packets to [fd00:88::11]:80 and 1 more (policy drop); accept with: ' +
          'ip6tables -I FORWARD -m conntrack --ctstate DNAT --ctreplsrc fd00:88::/64 -j ACCEPT',
      ]);
      assertRemedy(log);
    });
  }

  s.test('a rule that rejects the container’s port: the warning names it', () => {
    for (const program of ['iptables', 'ip6tables'])
      sh(`${program} -A FORWARD -p tcp -m tcp --dport 80 -j REJECT`);
    const { log } = add(s.c1, [tcp(9002), tcp(9003, 81)]);
    assert.match(
      linesOf(log)[0] ?? '',
      /^chain FORWARD of iptables drops tcp packets to 10\.88\.0\.11:80 \(rule "-A FORWARD -p tcp -m tcp --dport 80 -j REJECT/,
    );
    assert.equal(arrives(9003), [true, true]);
    assertRemedy(log);
  });

  s.test('a table of the operator’s own with policy drop: a warning with commands that help', () => {
    inetTable('drop');
    const { log } = add(s.c1, [tcp(9002)]);
    assert.equal(linesOf(log), [
      'chain passing of table inet mine drops tcp packets to 10.88.0.11:80 and 1 more (policy drop); accept with: ' +
        'nft insert rule inet mine passing ct status dnat ct reply ip saddr 10.88.0.0/16 accept; ' +
        'nft insert rule inet mine passing ct status dnat ct reply ip6 saddr fd00:88::/64 accept',
    ]);
    assertRemedy(log);
  });

  s.test(
    'policy DROP, and the operator’s chain of the firewall plugin accepts, as on a Nomad client: no warning',
    () => {
      forwardPolicy('DROP');
      for (const program of ['iptables', 'ip6tables']) {
        sh(`${program} -N NOMAD-ADMIN`);
        sh(`${program} -A NOMAD-ADMIN -o br0 -j ACCEPT`);
      }
      const firewall = {
        cniVersion: '1.0.0',
        name: 'net1',
        type: 'firewall',
        backend: 'iptables',
        iptablesAdminChainName: 'NOMAD-ADMIN',
      };
      good('firewall', 'ADD', s.c1, { ...firewall, prevResult: s.c1.prevResult });
      assert.is(add(s.c1, [tcp(9002)]).log, '');
      assert.equal(arrives(), [true, true]);
      assert.match(ask('c1', 'tcp', OUTSIDE.ipv4, 80), /^out/);
    },
  );

  s.test('hostIP 127.0.0.1: its connections are not forwarded, so no warning', () => {
    forwardPolicy('DROP');
    assert.is(add(s.c1, [{ ...tcp(9002), hostIP: '127.0.0.1' }]).log, '');
    assert.match(ask('', 'tcp', '127.0.0.1', 9002), /^one/);
  });

  s.test.run();
}
