import { mkdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { sh } from '../../../support/variants.ts';
import { add, call, config, scene, tcp, udp, type Filter } from '../../../support/portmap-scene.ts';
import { ask, bad, good, HOST, makeContainer, removeContainer } from '../../../support/port-host.ts';

/** The portmap executable on a real kernel; the same for every packet filter. */
export function holdersCases(filter: Filter): void {
  const s = scene('host ports that are held already', filter);

  s.test('a port of a living container is refused by its name, and nothing is changed', () => {
    add(s.c1, [tcp(9002)]);
    const before = s.ruleset();
    for (const mapping of [tcp(9002), { ...tcp(9001), range: 2 }, { ...tcp(9002), hostIP: HOST.ipv4 }]) {
      const error = bad('portmap', 'ADD', s.c2, config(s.c2, [mapping]));
      assert.is(error.code, 11);
      assert.is(
        error.msg,
        'host port 9002/tcp is already in use by running container c1 of network net1 (10.88.0.11)',
      );
      assert.match(error.details ?? '', /portConflict/);
    }
    assert.is(s.ruleset(), before);
    add(s.c2, [udp(9002), tcp(9003)]);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^one/);
    call('DEL', s.c1, [tcp(9002)]);
    add(s.c2, [tcp(9002)]);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^two/);
  });

  s.test('different addresses of the host are different ports', () => {
    add(s.c1, [{ ...tcp(9002), hostIP: HOST.ipv4 }]);
    add(s.c2, [{ ...tcp(9002), hostIP: HOST.other }]);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^one/);
    assert.match(ask('outside', 'tcp', HOST.other, 9002), /^two/);
  });

  s.test('"portConflict": "reference" lets the first one win until its DEL', () => {
    const like = { portConflict: 'reference' };
    add(s.c1, [tcp(9002)], like);
    add(s.c2, [tcp(9002)], like);
    for (const container of [s.c1, s.c2]) call('CHECK', container, [tcp(9002)], like);
    for (const address of [HOST.ipv4, HOST.ipv6]) assert.match(ask('outside', 'tcp', address, 9002), /^one/);
    call('DEL', s.c1, [tcp(9002)]);
    for (const address of [HOST.ipv4, HOST.ipv6]) assert.match(ask('outside', 'tcp', address, 9002), /^two/);
    call('CHECK', s.c2, [tcp(9002)], like);
    call('DEL', s.c2, [tcp(9002)]);
    assert.not.match(s.ruleset(), /9002/);
  });

  s.test('one container on two networks, each with the same mapping: DEL of one leaves the other’s', () => {
    const names = ['net1', 'net2'];
    for (const name of names) add(s.c1, [tcp(9002)], { name });
    for (const name of names) call('CHECK', s.c1, [tcp(9002)], { name });
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^one/);
    call('DEL', s.c1, [tcp(9002)], { name: 'net1' });
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^one/);
    call('CHECK', s.c1, [tcp(9002)], { name: 'net2' });
    assert.is(bad('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)])).code, 11);
    call('DEL', s.c1, [tcp(9002)], { name: 'net2' });
    assert.not.match(s.ruleset(), /9002/);
  });

  s.test('a living holder with a very long id is not taken for dead because its comment was cut', () => {
    const long = { ...s.c1, id: 'x'.repeat(200) };
    good('portmap', 'ADD', long, config(long, [tcp(9002)]));
    mkdirSync('/var/lib/cni/networks/net1', { recursive: true });
    writeFileSync('/var/lib/cni/networks/net1/10.88.0.11', `${long.id}\r\neth0`);
    assert.is(bad('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)])).code, 11);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^one/);
    good('portmap', 'CHECK', long, config(long, [tcp(9002)]));
    good('portmap', 'DEL', long, config(long, [tcp(9002)]));
    assert.not.match(s.ruleset(), /9002/);
  });

  s.test('a port of a dead container is taken over, and all its rules go', () => {
    const dead = makeContainer('dead', 66);
    good('portmap', 'ADD', dead, config(dead, [tcp(9002), tcp(9004)]));
    removeContainer(dead);
    const { log } = good('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)]));
    assert.match(
      log,
      /host port 9002\/tcp: taken over from container dead of network net1 \(10\.88\.0\.66\): no network namespace/,
    );
    assert.not.match(s.ruleset(), /\bdead\b|10\.88\.0\.66|fd00:88::66/);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^two/);
  });

  s.test('a holder whose interface is gone but whose namespace the runtime still knows may live', () => {
    const away = makeContainer('away', 67);
    good('portmap', 'ADD', away, config(away, [tcp(9002)]));
    sh('ip link del v-away');
    mkdirSync('/var/lib/cni/results', { recursive: true });
    const entry = {
      kind: 'cniCacheV1',
      containerId: 'away',
      ifName: 'eth0',
      networkName: 'net1',
      netns: away.netns,
    };
    writeFileSync('/var/lib/cni/results/net1-away-eth0', JSON.stringify({ ...entry, result: { ips: [] } }));
    assert.is(bad('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)])).code, 11);
    sh('ip netns del away');
    add(s.c2, [tcp(9002)]);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^two/);
  });

  s.test('a mapping whose address is leased to another container now does not conflict', () => {
    const old = { ...makeContainer('old', 68) };
    good('portmap', 'ADD', old, config(old, [tcp(9002)]));
    mkdirSync('/var/lib/cni/networks/net1', { recursive: true });
    writeFileSync('/var/lib/cni/networks/net1/10.88.0.68', 'new-owner\r\neth0');
    writeFileSync('/var/lib/cni/networks/net1/fd00:88::68', 'new-owner\r\neth0');
    const { log } = good('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)]));
    assert.match(log, /10\.88\.0\.68 is now leased to container new-owner of network net1/);
    removeContainer(old);
  });

  s.test.run();
}
