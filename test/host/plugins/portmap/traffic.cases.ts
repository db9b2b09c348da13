import * as assert from 'uvu/assert';
import { sh } from '../../../support/variants.ts';
import { add, call, scene, tcp, udp, type Filter } from '../../../support/portmap-scene.ts';
import { arrivals, askSctp, listenSctp, missingForSctp, sendInit } from './sctp.ts';
import { ask, HOST, OUTSIDE } from '../../../support/port-host.ts';

/** The portmap executable on a real kernel; the same for every packet filter. */
export function trafficCases(filter: Filter): void {
  const s = scene('traffic', filter);

  s.test('traffic from everywhere reaches the container, its source kept where it can be', () => {
    add(s.c1, [tcp(9002), udp(9002)]);
    for (const protocol of ['tcp', 'udp'] as const) {
      assert.is(ask('outside', protocol, HOST.ipv4, 9002), `one ${OUTSIDE.ipv4}`);
      assert.is(ask('outside', protocol, HOST.ipv6, 9002), `one ${OUTSIDE.ipv6}`);
      assert.match(ask('', protocol, HOST.ipv4, 9002), /^one /);
      assert.is(ask('', protocol, '127.0.0.1', 9002), 'one 10.88.0.1', 'localhost is masqueraded');
      assert.is(ask('c2', protocol, '10.88.0.1', 9002), 'one 10.88.0.1', 'a neighbour through the host');
      assert.match(ask('c1', protocol, HOST.ipv4, 9002), /^one /, 'hairpin');
      assert.match(ask('c1', protocol, HOST.ipv6, 9002), /^one /, 'hairpin');
    }
    assert.is(sh('sysctl -n net.ipv4.conf.br0.route_localnet').trim(), '1');
  });

  s.test('SCTP from outside reaches the container, in any case of its name', () => {
    add(s.c1, [{ hostPort: 9002, containerPort: 8080, protocol: 'SCTP' }]);
    const before = arrivals('c1', 8080);
    sendInit('outside', HOST.ipv4, 9001);
    sendInit('outside', HOST.ipv4, 9002);
    assert.is(arrivals('c1', 8080), before + 1);
  });

  const noSockets = missingForSctp();
  const association = 'an SCTP association from outside: data both ways, to the mapped port only';
  if (noSockets !== undefined) s.test.skip(association, noSockets);
  else {
    s.test(association, () => {
      add(s.c1, [{ hostPort: 9002, containerPort: 8080, protocol: 'sctp' }]);
      const server = listenSctp('c1', 8080);
      try {
        assert.is(askSctp('outside', HOST.ipv4, 9002, 'hello'), 'heard hello');
        assert.is(askSctp('outside', HOST.ipv4, 9001, 'hello'), '');
      } finally {
        server.kill();
      }
    });
  }

  s.test('traffic to other hosts is let alone', () => {
    add(s.c1, [tcp(8080), udp(8080)]);
    for (const protocol of ['tcp', 'udp'] as const) {
      assert.match(ask('c2', protocol, OUTSIDE.ipv4, 8080), /^out /);
      assert.match(ask('', protocol, OUTSIDE.ipv6, 8080), /^out /);
    }
  });

  s.test('UDP flows go to the new container at once, and other flows are let alone', () => {
    // On an emulated processor the test takes longer than the kernel's 30 s.
    sh('sysctl -qw net.netfilter.nf_conntrack_udp_timeout=600');
    add(s.c1, [udp(9002), udp(9003)]);
    const from = (sourcePort: number, port: number): string =>
      ask('outside', 'udp', HOST.ipv4, port, { sourcePort });
    assert.match(from(40000, 9002), /^one/);
    assert.match(from(40001, 9003), /^one/);
    assert.match(ask('c2', 'udp', OUTSIDE.ipv4, 8080, { sourcePort: 40002 }), /^out/);
    const flows = (): string => sh('conntrack -L -p udp');
    assert.match(flows(), /sport=40000/);
    call('DEL', s.c1, [udp(9002), udp(9003)]);
    assert.not.match(flows(), /sport=4000[01]/);
    assert.match(flows(), /sport=40002/);
    // A flow to the port from before it was mapped at all.
    from(40000, 9002);
    add(s.c2, [udp(9002)]);
    assert.match(from(40000, 9002), /^two/);
    assert.match(flows(), /sport=40002/);
  });

  s.test.run();
}
