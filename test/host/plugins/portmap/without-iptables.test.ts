import { copyFileSync, globSync, mkdirSync, rmSync } from 'node:fs';
import { basename } from 'node:path';
import * as assert from 'uvu/assert';
import { removePrograms } from '../../../support/variants.ts';
import { add, call, config, node, scene, tcp, udp } from '../../../support/portmap-scene.ts';
import { ask, bad, good, HOST } from '../../../support/port-host.ts';

/** A host that has neither iptables nor nft(8): everything goes over netlink. */
const s = scene('a host without iptables', 'nftables');

s.test.before(() => {
  // The test itself looks with an nft of its own, where no plugin looks for programs.
  mkdirSync('/run/tools');
  copyFileSync('/usr/sbin/nft', '/run/tools/nft');
  process.env['PATH'] = `/run/tools:${process.env['PATH'] ?? ''}`;
  const names = globSync('/usr/sbin/{iptables,ip6tables,xtables,ebtables,arptables,nft}*');
  removePrograms(...names.map((name) => basename(name)));
  for (const link of globSync('/etc/alternatives/{ip,ip6,eb,arp}tables*')) rmSync(link);
});

s.test('nftables is chosen, and every verb works', () => {
  node(undefined);
  const mappings = [tcp(9002), udp(9002)];
  call('STATUS', s.c1, mappings, { cniVersion: '1.1.0' });
  add(s.c1, mappings);
  call('CHECK', s.c1, mappings);
  for (const address of [HOST.ipv4, HOST.ipv6])
    for (const protocol of ['tcp', 'udp'] as const)
      assert.match(ask('outside', protocol, address, 9002), /^one/);
  const gc = { ...config(undefined, undefined), cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] };
  good('portmap', 'GC', s.c1, gc);
  assert.not.match(s.ruleset(), /9002/);
  add(s.c1, mappings);
  good('portmap', 'DEL', s.c1, config(undefined, undefined));
  assert.not.match(s.ruleset(), /9002/);
});

s.test('iptables by name is refused in words, and DEL by name is not', () => {
  const named = { backend: 'iptables' };
  const error = bad('portmap', 'ADD', s.c1, config(s.c1, [tcp(9002)], named));
  assert.match(error.msg, /this host has no iptables-restore/);
  assert.is(s.ruleset(), '');
  add(s.c1, [tcp(9002)]);
  call('DEL', s.c1, [tcp(9002)], named);
  assert.not.match(s.ruleset(), /9002/);
});

s.test('conditions in nft’s language say that they need its program', () => {
  const words = { conditionsV4: ['ip', 'saddr', '192.0.2.0/24'] };
  const error = bad('portmap', 'ADD', s.c1, config(s.c1, [tcp(9002)], words));
  assert.is(error.code, 50);
  assert.match(error.msg, /"conditionsV4" needs the program nft, which this host does not have/);
});

s.test.run();
