import * as assert from 'uvu/assert';
import { startPluginProcess, variables } from '../../../support/plugin.ts';
import { run, sh } from '../../../support/variants.ts';
import { generation, listed } from '../../../support/port-host.ts';
import { add, call, CHAIN, config, scene, tcp, udp } from '../../../support/portmap-scene.ts';
import { ask, bad, good, HOST, resultOf, type Container } from '../../../support/port-host.ts';

/** The portmap executable with its nftables backend: what it takes away, and what it finds missing. */
const s = scene('second ADD, CHECK, DEL, GC, many at once', 'nftables');

s.test('a second ADD with another address and other ports leads there, and only there', () => {
  add(s.c1, [tcp(9002), tcp(9004), { ...tcp(9005), hostIP: HOST.ipv4 }]);
  const moved = { ...s.c1, prevResult: resultOf(s.c1.netns, ['10.88.0.12/16', 'fd00:88::12/64']) };
  good('portmap', 'ADD', moved, config(moved, [tcp(9002), tcp(9003)]));
  assert.not.match(s.ruleset(), /10\.88\.0\.11|fd00:88::11|9004|9005/);
  assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^two/);
});

s.test('DEL needs no mappings, no prevResult, no namespace, no valid configuration', () => {
  const wrong = [{ hostPort: 0, containerPort: 80, protocol: 'tcp' }];
  const ways: [object, Partial<Container>][] = [
    [config(undefined, undefined), {}],
    [config(undefined, [tcp(1)]), { netns: '' }],
    [config(s.c1, undefined), { netns: '/run/netns/never' }],
    [config(undefined, wrong), { netns: '' }],
    [config(undefined, undefined, { backend: 'iptables', snat: 'yes' }), { netns: '' }],
  ];
  for (const [body, attachment] of ways) {
    add(s.c1, [tcp(9002), udp(9002)]);
    add(s.c2, [tcp(9003)]);
    good('portmap', 'DEL', { ...s.c1, ...attachment }, body);
    assert.not.match(s.ruleset(), new RegExp(`${CHAIN}|9002`));
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9003), /^two/);
    call('DEL', s.c2, [tcp(9003)]);
  }
});

s.test('DEL takes a family that the container has no address of any more', () => {
  add(s.c1, [tcp(9002)]);
  const v4 = { ...s.c1, prevResult: resultOf(s.c1.netns, ['10.88.0.11/16']) };
  good('portmap', 'DEL', v4, config(v4, [tcp(9002)]));
  assert.not.match(s.ruleset(), /9002/);
});

s.test('CHECK names each thing that is missing, and changes nothing', () => {
  const mappings = [tcp(9002), { ...tcp(9003), hostIP: HOST.ipv4 }];
  const rule = `list chain ip weft_hostports ${CHAIN}`;
  const handle = (): string =>
    /dport 9002.*# handle (\d+)/.exec(run('nft', '-a', ...rule.split(' ')))?.[1] ?? '';
  for (const [line, message] of [
    ['flush chain ip weft_hostports output', /lookup rule is missing from table ip weft_hostports/],
    ['flush chain ip weft_hostports postrouting', /masquerade rule is missing from table ip weft_hostports/],
    [
      `delete rule ip weft_hostports ${CHAIN} handle HANDLE`,
      new RegExp(`rule "tcp 9002-9002 .*" is missing from chain ${CHAIN}`),
    ],
    [
      'delete element ip weft_hostports ports { tcp . 9002 }',
      /tcp \. 9002 is missing from map ports of table ip weft/,
    ],
    [
      'delete element ip weft_hostports address_ports { 192.0.2.1 . tcp . 9003 }',
      /192\.0\.2\.1 \. tcp \. 9003 is missing from map address_ports/,
    ],
    ['flush ruleset', /table ip weft_hostports is missing/],
  ] as const) {
    add(s.c1, mappings);
    call('CHECK', s.c1, mappings);
    run('nft', line.replace('HANDLE', handle()));
    const before = generation();
    const error = bad('portmap', 'CHECK', s.c1, config(s.c1, mappings));
    assert.is(error.code, 999);
    assert.match(error.msg, message);
    assert.is(generation(), before);
  }
});

s.test('GC removes what is not valid any more, of this network, in both families', () => {
  add(s.c1, [tcp(9002), udp(9002)]);
  add(s.c2, [tcp(9003)]);
  add(s.c2, [tcp(9004)], { name: 'net2' });
  ask('outside', 'udp', HOST.ipv4, 9002, { sourcePort: 40010 });
  const gc = (name: string, valid: object[]): void =>
    void good('portmap', 'GC', s.c1, {
      ...config(undefined, undefined),
      name,
      cniVersion: '1.1.0',
      'cni.dev/valid-attachments': valid,
    });
  gc('net1', [{ containerID: 'c2', ifname: 'eth0' }]);
  for (const family of ['ip', 'ip6']) {
    const text = listed(`table ${family} weft_hostports`).join('\n');
    assert.not.match(text, /id: c1|9002/);
    assert.match(text, /tcp \. 9003/);
    assert.match(text, /tcp \. 9004/);
  }
  assert.not.match(sh('conntrack -L -p udp'), /sport=40010/);
  gc('net1', []);
  assert.not.match(s.ruleset(), /9003/);
  assert.match(s.ruleset(), /9004/);
});

s.test('GC and DEL of a port that several share leave it to who stays, or nothing', () => {
  const like = { portConflict: 'reference' };
  for (const container of [s.c1, s.c2, { ...s.c1, id: 'c3' }]) add(container, [tcp(9002)], like);
  const valid = [{ containerID: 'c2', ifname: 'eth0' }];
  const gc = { ...config(undefined, undefined), cniVersion: '1.1.0', 'cni.dev/valid-attachments': valid };
  good('portmap', 'GC', s.c1, gc);
  assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^two/);
  good('portmap', 'GC', s.c1, { ...gc, 'cni.dev/valid-attachments': [] });
  assert.not.match(s.ruleset(), /9002|CNI-DN/);
});

s.test('forty containers at once on a fresh host', async () => {
  const starts = Array.from({ length: 40 }, (_, at) =>
    startPluginProcess('portmap', {
      command: 'ADD',
      patience: 80_000,
      env: variables({ id: `p${at}`, netns: s.c1.netns }),
      stdin: config(undefined, [tcp(10000 + at), udp(10000 + at)], {
        prevResult: resultOf(s.c1.netns, [`10.88.1.${at}/16`]),
      }),
    }),
  );
  const failed = (await Promise.all(starts)).filter(({ exitCode }) => exitCode !== 0);
  assert.equal(failed, []);
  const table = listed('table ip weft_hostports');
  const count = (pattern: RegExp): number => table.filter((line) => pattern.test(line)).length;
  assert.is(count(/^chain CNI-DN-/), 40);
  assert.is(count(/ : jump CNI-DN-/), 80);
  assert.is(count(/dnat to/), 80);
  assert.is(count(/vmap @ports/), 2);
  assert.is(count(/vmap @address_ports/), 2);
  assert.is(count(/masquerade/), 1);
});

s.test.run();
