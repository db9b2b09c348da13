import { mkdirSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { saved, sh, type Variant } from '../../shared/packetfilter/variants.ts';
import { add, call, config, scene, tcp, udp } from './scene.ts';
import { ask, bad, good, HOST, makeContainer, removeContainer } from './world.ts';

/** The portmap executable on a real kernel; the same for both variants of iptables. */
export function holdersCases(variant: Variant): void {
  const s = scene('host ports that are held already', variant);

  s.test('a port of a living container is refused by its name, and nothing is changed', () => {
    add(s.c1, [tcp(9002)]);
    const before = saved('nat') + saved('nat', 'ipv6');
    for (const mapping of [tcp(9002), { ...tcp(9001), range: 2 }, { ...tcp(9002), hostIP: HOST.ipv4 }]) {
      const error = bad('portmap', 'ADD', s.c2, config(s.c2, [mapping]));
      assert.is(error.code, 11);
      assert.is(
        error.msg,
        'host port 9002/tcp is held by container c1 of network net1 at 10.88.0.11, which is alive',
      );
      assert.match(error.details ?? '', /portConflict/);
    }
    assert.is(saved('nat') + saved('nat', 'ipv6'), before);
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
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^one/);
    call('DEL', s.c1, [tcp(9002)]);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^two/);
  });

  s.test('a port of a dead container is taken over, and all its rules go', () => {
    const dead = makeContainer('dead', 66);
    good('portmap', 'ADD', dead, config(dead, [tcp(9002), tcp(9004)]));
    removeContainer(dead);
    const { log } = good('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)]));
    assert.match(
      log,
      /taking over 9002\/tcp from container dead of network net1 at 10\.88\.0\.66: no network namespace/,
    );
    assert.not.match(saved('nat') + saved('nat', 'ipv6'), /\\"dead\\"|10\.88\.0\.66|fd00:88::66/);
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

  s.test('an address that was leased to somebody else since proves its old holder dead', () => {
    const old = { ...makeContainer('old', 68) };
    good('portmap', 'ADD', old, config(old, [tcp(9002)]));
    mkdirSync('/var/lib/cni/networks/net1', { recursive: true });
    writeFileSync('/var/lib/cni/networks/net1/10.88.0.68', 'heir\r\neth0');
    writeFileSync('/var/lib/cni/networks/net1/fd00:88::68', 'heir\r\neth0');
    const { log } = good('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)]));
    assert.match(log, /10\.88\.0\.68 is leased to container heir of network net1 now/);
    removeContainer(old);
  });

  s.test.run();
}
