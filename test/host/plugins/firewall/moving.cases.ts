import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { rules, run, saved, type Variant } from '../../../support/variants.ts';
import {
  ask,
  type Container,
  generation,
  good,
  makeContainer,
  nft,
  OUTSIDE,
  removeContainer,
} from '../../../support/port-host.ts';
import { accepts, call, config, elements, lease, own, owned, scene } from './scene.ts';

/** A node that is moved from one backend to the other while containers run. No backend is named by the network. */
export function movingCases(variant: Variant): void {
  const s = scene('moving to nftables and back', variant);
  const UNNAMED = { backend: '' };

  const add = (container: Container, more: object = {}): string =>
    call('ADD', container, { ...UNNAMED, ...more });
  const check = (container: Container, more: object = {}): string =>
    call('CHECK', container, { ...UNNAMED, ...more });
  const del = (container: Container, more: object = {}): string =>
    call('DEL', container, { ...UNNAMED, ...more });

  function node(text: string | undefined): void {
    rmSync('/etc/weft', { recursive: true, force: true });
    if (text === undefined) return;
    mkdirSync('/etc/weft');
    writeFileSync('/etc/weft/weft.json', text);
  }
  const NFTABLES = '{"backend": "nftables"}';

  const reaches = (name: string): boolean[] =>
    [OUTSIDE.ipv4, OUTSIDE.ipv6].map((address) => ask(name, 'tcp', address, 80).startsWith('out'));

  s.test('iptables, nftables, iptables: everybody keeps its traffic, CHECK passes, DEL cleans either', () => {
    add(s.c1);
    assert.equal(accepts(), own('10.88.0.11/32'));
    assert.equal(elements(), []);

    node(NFTABLES);
    assert.is(add(s.c2), '');
    assert.equal(elements(), owned(s.c2));
    assert.equal(accepts(), own('10.88.0.11/32'), 'rules of those that are there stay');
    const before = [generation(), saved('filter')];
    for (const container of [s.c1, s.c2]) check(container);
    assert.equal([generation(), saved('filter')], before);
    for (const name of ['c1', 'c2']) assert.equal(reaches(name), [true, true], name);

    node(undefined);
    add(s.far);
    assert.equal(accepts(), [...own('10.88.0.11/32'), ...own('10.99.0.13/32')]);
    for (const container of [s.c1, s.c2, s.far]) check(container);

    node(NFTABLES);
    del(s.c1);
    assert.equal(accepts(), own('10.99.0.13/32'), 'made by iptables, removed while nftables is chosen');
    node(undefined);
    del(s.c2);
    assert.equal(elements(), [], 'made by nftables, removed while iptables is chosen');
    del(s.far);
    assert.equal([...accepts(), ...accepts('ipv6'), ...elements()], []);
  });

  s.test(
    'CHECK of a container that is complete nowhere names what is missing where it would be made today',
    () => {
      add(s.c1);
      node(NFTABLES);
      run('iptables', '-D', 'CNI-FORWARD', '-s', '10.88.0.11', '-j', 'ACCEPT');
      assert.throws(() => check(s.c1), /table inet weft_firewall is missing/);
      add(s.c1);
      check(s.c1);
    },
  );

  s.test(
    'policy DROP of iptables: containers of the iptables back end pass, of the nftables back end a warning says why not',
    () => {
      for (const program of ['iptables', 'ip6tables']) run(program, '-P', 'FORWARD', 'DROP');
      add(s.c1);
      node(NFTABLES);
      assert.match(add(s.c2), /chain FORWARD of iptables drops tcp packets from 10\.88\.0\.12 /);
      assert.equal(reaches('c1'), [true, true]);
      assert.is(ask('c2', 'tcp', OUTSIDE.ipv4, 80, { patience: 700 }), 'nothing');
      node(undefined);
      assert.is(add(s.c2), '');
      assert.equal(reaches('c2'), [true, true]);
      del(s.c2);
      assert.equal([...accepts(), ...elements()], own('10.88.0.11/32'), 'an ADD on each, one DEL for both');
    },
  );

  s.test('GC cleans both, whichever is chosen', () => {
    const gone = makeContainer('gone', 70);
    for (const text of [undefined, NFTABLES]) {
      node(text);
      for (const container of [s.c1, gone]) add(container);
    }
    removeContainer(gone);
    lease('net1', s.c1.ipv4, 'c1\r\neth0');
    lease('net1', s.c1.ipv6, 'c1\r\neth0');
    for (const text of [undefined, NFTABLES]) {
      node(text);
      const valid = { 'cni.dev/valid-attachments': [{ containerID: 'c1', ifname: 'eth0' }] };
      good('firewall', 'GC', s.c1, config(undefined, { ...UNNAMED, ...valid }));
      assert.equal(elements(), owned(s.c1));
      assert.equal(accepts(), own('10.88.0.11/32'));
      assert.equal(accepts('ipv6'), own('fd00:88::11/128'));
    }
  });

  s.test('an invalid weft.json fails ADD, but neither CHECK nor DEL', () => {
    add(s.c1);
    node('{');
    assert.throws(() => add(s.c2), /weft\.json/);
    check(s.c1);
    del(s.c1);
    assert.equal(accepts(), []);
  });

  s.test('what the network names comes before what the node says', () => {
    node(NFTABLES);
    add(s.c1, { backend: 'iptables' });
    assert.equal(elements(), []);
    assert.is(nft('list tables inet'), '');
    node('{"backend": "iptables"}');
    add(s.c2, { backend: 'nftables' });
    assert.equal(elements(), owned(s.c2));
    assert.equal(accepts(), own('10.88.0.11/32'));
    node(NFTABLES);
    add(s.far, { backend: 'ipchains' });
    assert.equal(elements(), [...owned(s.c2), ...owned(s.far)].sort(), 'an unknown word selects no back end');
  });

  s.test('a policy that was made by iptables still holds beside one of nftables', () => {
    const policed = { ingressPolicy: 'same-bridge' };
    add(s.c1, policed);
    node(NFTABLES);
    for (const container of [s.c2, s.far]) add(container, policed);
    assert.match(ask('c1', 'tcp', s.c2.ipv4, 80), /^two/);
    assert.is(ask('c1', 'tcp', s.far.ipv4, 80, { patience: 700 }), 'nothing');
    assert.ok(rules('filter').some((line) => line.includes('CNI-ISOLATION')));
  });

  s.test.run();
}
