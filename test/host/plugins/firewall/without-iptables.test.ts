import { copyFileSync, globSync, mkdirSync, rmSync } from 'node:fs';
import { call, config, elements, owned, scene } from './scene.ts';
import { basename } from 'node:path';
import * as assert from 'uvu/assert';
import { removePrograms } from '../../../support/variants.ts';
import { ask, bad, good, nft, OUTSIDE } from '../../../support/port-host.ts';

/** A host that has neither iptables nor nft(8): everything goes over netlink. */
const s = scene('a host without iptables', 'nftables', () => {
  // The test itself looks with an nft of its own, where no plugin looks for programs.
  mkdirSync('/run/tools');
  copyFileSync('/usr/sbin/nft', '/run/tools/nft');
  process.env['PATH'] = `/run/tools:${process.env['PATH'] ?? ''}`;
  const names = globSync('/usr/sbin/{iptables,ip6tables,xtables,ebtables,arptables,nft,firewall}*');
  removePrograms(...names.map((name) => basename(name)));
  for (const link of globSync('/etc/alternatives/{ip,ip6,eb,arp}tables*')) rmSync(link);
});

s.test('nftables is chosen, and every verb works', () => {
  const unnamed = { backend: '' };
  for (const command of ['STATUS', 'ADD', 'CHECK']) assert.is(call(command, s.c1, unnamed), '');
  assert.equal(elements(), owned(s.c1));
  nft('chain inet weft_firewall forward { policy drop; }');
  assert.match(ask('c1', 'tcp', OUTSIDE.ipv4, 80), /^out/);
  assert.match(ask('c1', 'udp', OUTSIDE.ipv6, 80), /^out/);
  good('firewall', 'GC', s.c1, config(undefined, { ...unnamed, 'cni.dev/valid-attachments': [] }));
  assert.equal(elements(), []);
  call('ADD', s.c1, unnamed);
  good('firewall', 'DEL', s.c1, config(undefined, unnamed));
  assert.equal(elements(), []);
  call('DEL', s.c1, unnamed);
});

s.test('iptables by name is refused in words, and DEL by name is not', () => {
  const named = { backend: 'iptables' };
  for (const command of ['ADD', 'STATUS']) {
    assert.match(
      bad('firewall', command, s.c1, config(s.c1, named)).msg,
      /this host has no iptables-restore/,
    );
  }
  assert.is(nft('list ruleset'), '');
  call('ADD', s.c1);
  call('DEL', s.c1, named);
  assert.equal(elements(), []);
});

s.test('firewalld by name is refused in words, and DEL by name is not', () => {
  const named = { backend: 'firewalld' };
  for (const command of ['ADD', 'CHECK', 'STATUS']) {
    const error = bad('firewall', command, s.c1, config(s.c1, named));
    assert.is(error.code, 50);
    assert.match(error.msg, /firewalld does not run on this host/);
    assert.match(error.details ?? '', /start firewalld, .*"backend": "nftables"/);
  }
  assert.is(nft('list ruleset'), '');
  for (const command of ['DEL', 'DEL']) call(command, s.c1, named);
});

s.test.run();
