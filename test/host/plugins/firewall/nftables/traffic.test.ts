import { rmSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { startPluginProcess, variables } from '../../../../support/plugin.ts';
import { TIME_FACTOR } from '../../../../support/suite.ts';
import {
  ask,
  bad,
  generation,
  good,
  listed,
  makeContainer,
  nft,
  OUTSIDE,
  removeContainer,
  resultOf,
} from '../../../../support/port-host.ts';
import { call, config, elements, keep, lease, owned, scene } from '../scene.ts';

/** The executable on nf_tables, with real traffic. */
const s = scene('rules and traffic', 'nftables');
const QUICK = { patience: 700 };

s.test('makes one table, and commits nothing the second time', () => {
  const prevResult = { ...s.c1.prevResult, cniVersion: '1.1.0' };
  const { result } = good('firewall', 'ADD', s.c1, config(undefined, { prevResult }));
  assert.equal((result as { ips: unknown }).ips, prevResult['ips' as keyof typeof prevResult]);
  assert.equal(listed('ruleset'), [
    'table inet weft_firewall {',
    'comment "containers that the weft firewall plugin lets through"',
    'set containers4 {',
    'type ipv4_addr',
    'elements = { 10.88.0.11 comment "name: net1 id: c1" }',
    '}',
    'set containers6 {',
    'type ipv6_addr',
    'elements = { fd00:88::11 comment "name: net1 id: c1" }',
    '}',
    'set policy_bridges {',
    'type ifname',
    '}',
    'map same_bridge {',
    'type ifname . ifname : verdict',
    '}',
    'chain admin_chains {',
    'jump NOMAD-ADMIN',
    '}',
    'chain ingress_policies {',
    'iifname . oifname vmap @same_bridge',
    'iifname @policy_bridges oifname @policy_bridges drop',
    '}',
    'chain forward {',
    'type filter hook forward priority filter - 10; policy accept;',
    'jump ingress_policies',
    'jump admin_chains',
    'ct state established,related ip daddr @containers4 accept',
    'ip saddr @containers4 accept',
    'ct state established,related ip6 daddr @containers6 accept',
    'ip6 saddr @containers6 accept',
    '}',
    'chain NOMAD-ADMIN {',
    'comment "the operator\'s own rules: the plugin puts none in here"',
    '}',
    '}',
  ]);
  const policed = { ingressPolicy: 'isolated' };
  call('ADD', s.c2, policed);
  const before = generation();
  call('ADD', s.c1);
  call('ADD', s.c2, policed);
  for (const command of ['CHECK', 'STATUS']) call(command, s.c2, policed);
  assert.is(generation(), before);
  call('DEL', s.c2);
  assert.equal(elements(), owned(s.c1));
  const after = generation();
  call('DEL', s.c2);
  assert.is(generation(), after, 'a second DEL has nothing to commit');
});

s.test('what nft(8) prints, nft(8) can read', () => {
  call('ADD', s.c1, { ingressPolicy: 'same-bridge' });
  const before = nft('list ruleset');
  nft('flush ruleset');
  for (const part of before.split(/^(?=table )/m)) nft(part);
  assert.is(nft('list ruleset'), before);
  const unchanged = generation();
  call('ADD', s.c1, { ingressPolicy: 'same-bridge' });
  assert.is(generation(), unchanged, 'what was restored by hand is what the plugin wants');
});

s.test(
  'with an operator’s policy drop on our own chain: out and back, in only by the operator’s rules',
  () => {
    call('ADD', s.c1);
    nft('chain inet weft_firewall forward { policy drop; }');
    for (const protocol of ['tcp', 'udp'] as const) {
      assert.is(ask('c1', protocol, OUTSIDE.ipv4, 80), 'out 10.88.0.11');
      assert.is(ask('c1', protocol, OUTSIDE.ipv6, 80), 'out fd00:88::11');
    }
    assert.is(ask('outside', 'tcp', s.c1.ipv4, 80, QUICK), 'nothing');
    assert.is(ask('c2', 'tcp', OUTSIDE.ipv4, 80, QUICK), 'nothing', 'c2 has no rules');
    nft('add rule inet weft_firewall NOMAD-ADMIN oifname "br0" accept');
    assert.is(ask('outside', 'tcp', s.c1.ipv4, 80), `one ${OUTSIDE.ipv4}`);
    assert.is(ask('outside', 'udp', s.c1.ipv6, 80), `one ${OUTSIDE.ipv6}`);
    call('ADD', s.c2);
    assert.match(listed('ruleset').join('\n'), /policy drop;/, 'the operator’s policy stays');
    assert.is(ask('c2', 'tcp', OUTSIDE.ipv4, 80), 'out 10.88.0.12');
  },
);

s.test('the operator’s chains are asked before any acceptance, and are never touched', () => {
  nft('add table inet weft_firewall');
  nft('add chain inet weft_firewall NOMAD-ADMIN');
  nft(`add rule inet weft_firewall NOMAD-ADMIN ip daddr ${OUTSIDE.ipv4} drop`);
  call('ADD', s.c1);
  assert.is(ask('c1', 'tcp', OUTSIDE.ipv4, 80, QUICK), 'nothing');
  assert.match(ask('c1', 'tcp', OUTSIDE.ipv6, 80), /^out/);
  call('ADD', s.c2, { iptablesAdminChainName: '' });
  call('ADD', s.c1);
  assert.equal(listed('chain inet weft_firewall admin_chains').slice(2, 4), [
    'jump NOMAD-ADMIN',
    'jump CNI-ADMIN',
  ]);
  assert.ok(listed('chain inet weft_firewall NOMAD-ADMIN').includes(`ip daddr ${OUTSIDE.ipv4} drop`));
  const error = bad('firewall', 'ADD', s.c1, config(s.c1, { iptablesAdminChainName: 'forward' }));
  assert.is(error.code, 7);
  assert.match(error.msg, /forward is the name of a chain of the plugin's own table/);
});

s.test(
  'an address that a lost container had becomes the new one’s, and only its own DEL takes it away',
  () => {
    call('ADD', { ...s.c1, id: 'lost' });
    call('ADD', s.c1);
    assert.equal(elements(), owned(s.c1));
    const error = bad('firewall', 'CHECK', { ...s.c1, id: 'lost' }, config(s.c1));
    assert.match(
      error.msg,
      /10\.88\.0\.11 of set containers4 .* is another container's \(name: net1 id: c1\)/,
    );
    call('DEL', { ...s.c1, id: 'lost' });
    assert.equal(elements(), owned(s.c1));
    call('DEL', s.c1);
    assert.equal(elements(), []);
  },
);

s.test('DEL without prevResult finds the address where the host still has it', () => {
  const del = (attachment: object, more: object = {}): void =>
    void good('firewall', 'DEL', { ...s.c1, ...attachment }, config(undefined, more));
  call('ADD', s.c2);
  call('ADD', s.c1);
  del({});
  assert.equal(elements(), owned(s.c2), 'from the namespace');

  call('ADD', s.c1);
  lease('net1', s.c1.ipv4, 'c1\r\neth0');
  lease('net1', s.c1.ipv6, 'c1\r\neth0');
  del({ netns: '' });
  assert.equal(elements(), owned(s.c2), 'from the leases');

  rmSync('/var/lib/cni', { recursive: true });
  call('ADD', s.c1);
  keep('net1', 'c1', [`${s.c1.ipv4}/16`, `${s.c1.ipv6}/64`]);
  del({ netns: '/run/netns/never' });
  assert.equal(elements(), owned(s.c2), 'from the result that the runtime cached');

  del({ netns: '' }, { ingressPolicy: 'foo', backend: 7, iptablesAdminChainName: [] });
  nft('delete table inet weft_firewall');
  del({ netns: '' });
});

s.test('DEL without any trace of the address finds the elements by the container’s name', () => {
  for (const container of [s.c1, s.c2]) call('ADD', container);
  good('firewall', 'DEL', { ...s.c1, netns: '' }, config(undefined));
  assert.equal(elements(), owned(s.c2));
});

s.test('DEL removes the container’s own element though the address is leased to another one now', () => {
  call('ADD', s.c1);
  lease('net1', s.c1.ipv4, 'next\r\neth0');
  call('DEL', s.c1);
  assert.equal(elements(), []);
});

s.test('ADD again with another address, after a lost lease: the elements of the old address go', () => {
  call('ADD', s.c1);
  keep('net1', 'c1', [`${s.c1.ipv4}/16`, `${s.c1.ipv6}/64`]);
  const prevResult = resultOf(s.c1.netns, ['10.88.0.31/16', `${s.c1.ipv6}/64`]);
  good('firewall', 'ADD', s.c1, config(undefined, { prevResult }));
  assert.equal(elements(), [`10.88.0.31 = name: net1 id: c1`, owned(s.c1)[1]].sort());
});

s.test('GC removes every element of the network whose container is not valid, and no other', () => {
  const gone = makeContainer('gone', 70);
  for (const container of [s.c1, s.c2, gone]) call('ADD', container);
  call('ADD', s.far, { name: 'net10' });
  removeContainer(gone);
  const before = elements();
  assert.is(before.length, 8);
  const gc = (name: string, ...valid: string[]): void => {
    const attachments = valid.map((containerID) => ({ containerID, ifname: 'eth0' }));
    good('firewall', 'GC', s.c1, config(undefined, { name, 'cni.dev/valid-attachments': attachments }));
  };
  gc('net', 'c1');
  assert.equal(elements(), before, 'the network of a name that others begin with has nothing');
  gc('net1', 'c1', 'far');
  assert.equal(elements(), [...owned(s.c1), ...owned(s.far, 'net10')].sort());
  const unchanged = generation();
  gc('net1', 'c1');
  assert.is(generation(), unchanged);
  gc('net1');
  assert.equal(elements(), owned(s.far, 'net10'));
});

s.test('names that do not fit into a comment: ADD, CHECK, DEL and GC', () => {
  const id = 'x'.repeat(200);
  const long = { ...s.c1, id };
  for (const command of ['ADD', 'CHECK']) call(command, long);
  assert.is(elements()[0]?.length, '10.88.0.11 = '.length + 127);
  good(
    'firewall',
    'GC',
    s.c1,
    config(undefined, { 'cni.dev/valid-attachments': [{ containerID: id, ifname: 'eth0' }] }),
  );
  assert.is(elements().length, 2);
  good('firewall', 'GC', s.c1, config(undefined, { 'cni.dev/valid-attachments': [] }));
  assert.is(elements().length, 0);
  call('ADD', long, { name: 'n'.repeat(150) });
  call('DEL', long, { name: 'n'.repeat(150) });
  assert.is(elements().length, 0);
});

/** Each has its own 10 s, also on an emulated processor, where starting twelve processes at once takes longer. */
const AT_ONCE = TIME_FACTOR > 1 ? 3 : 12;

s.test(`${AT_ONCE} containers at once on a fresh host`, async () => {
  const starts = Array.from({ length: AT_ONCE }, (_, at) =>
    startPluginProcess('firewall', {
      command: 'ADD',
      env: variables({ id: `p${at}`, netns: s.c1.netns }),
      stdin: config(undefined, {
        ingressPolicy: 'same-bridge',
        prevResult: resultOf(s.c1.netns, [`10.88.1.${at}/16`, `fd00:88::1:${at}/64`]),
      }),
    }),
  );
  const failed = (await Promise.all(starts)).filter(({ exitCode }) => exitCode !== 0);
  assert.equal(failed, []);
  assert.is(elements().length, 2 * AT_ONCE);
  const rules = listed('chain inet weft_firewall forward').concat(
    listed('chain inet weft_firewall admin_chains'),
  );
  assert.is(rules.filter((line) => /^(jump|ip|ct)/.test(line)).length, 7, 'no rule twice');
});

s.test.run();
