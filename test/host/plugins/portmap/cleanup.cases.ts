import * as assert from 'uvu/assert';
import { startPluginProcess, variables } from '../../../support/plugin.ts';
import { rules, run, saved, sh, wordsOf, type Variant } from '../../../support/variants.ts';
import { add, call, CHAIN, chainOf, config, scene, tcp, udp } from '../../../support/portmap-scene.ts';
import { ask, bad, good, HOST, resultOf, type Container } from '../../../support/port-host.ts';

/** The portmap executable on a real kernel; the same for both variants of iptables. */
export function cleanupCases(variant: Variant): void {
  const s = scene('second ADD, CHECK, DEL, GC, many at once', variant);

  s.test('a second ADD with another address leads there, and only there', () => {
    add(s.c1, [tcp(9002)]);
    const moved = { ...s.c1, prevResult: resultOf(s.c1.netns, ['10.88.0.12/16', 'fd00:88::12/64']) };
    good('portmap', 'ADD', moved, config(moved, [tcp(9002), tcp(9003)]));
    assert.not.match(saved('nat') + saved('nat', 'ipv6'), /10\.88\.0\.11|fd00:88::11/);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^two/);
    assert.is(chainOf('CNI-HOSTPORT-DNAT').length, 1);
  });

  s.test('DEL needs no mappings, no prevResult, no namespace, no valid configuration', () => {
    const wrong = [{ hostPort: 0, containerPort: 80, protocol: 'tcp' }];
    const ways: [object, Partial<Container>][] = [
      [config(undefined, undefined), {}],
      [config(undefined, [tcp(1)]), { netns: '' }],
      [config(s.c1, undefined), { netns: '/run/netns/never' }],
      [config(undefined, wrong), { netns: '' }],
      [config(undefined, undefined, { backend: 'nftables', snat: 'yes' }), { netns: '' }],
    ];
    for (const [body, attachment] of ways) {
      add(s.c1, [tcp(9002), udp(9002)]);
      add(s.c2, [tcp(9003)]);
      good('portmap', 'DEL', { ...s.c1, ...attachment }, body);
      assert.not.match(saved('nat') + saved('nat', 'ipv6'), new RegExp(CHAIN));
      assert.match(ask('outside', 'tcp', HOST.ipv4, 9003), /^two/);
      call('DEL', s.c2, [tcp(9003)]);
    }
  });

  s.test('chains of very old releases of the reference go as well', () => {
    for (const chain of ['CNI-SN-c2d892b58e87e28a12fe6', 'CNI-HOSTPORT-SNAT'])
      sh(`iptables -t nat -N ${chain}`);
    sh('iptables -t nat -A CNI-HOSTPORT-SNAT -j CNI-SN-c2d892b58e87e28a12fe6');
    good('portmap', 'DEL', s.c1, config(undefined, undefined));
    assert.equal(rules('nat'), [':CNI-HOSTPORT-SNAT -']);
  });

  s.test('CHECK names each thing that is missing, and changes nothing', () => {
    const all = (): string[] => rules('nat').filter((line) => line.startsWith('-A '));
    add(s.c1, [tcp(9002)]);
    for (const line of all()) {
      const words = wordsOf(line.replace('-A ', '-D '));
      run('iptables', '-t', 'nat', ...words);
      const before = saved('nat');
      const error = bad('portmap', 'CHECK', s.c1, config(s.c1, [tcp(9002)]));
      assert.is(error.code, 999);
      const [, chain, rest] = /^-A (\S+) (.*)$/.exec(line) ?? [];
      assert.is(
        error.msg,
        `port mappings are incomplete: rule is missing from chain ${chain} of table nat (ipv4): ${rest}`,
      );
      assert.is(saved('nat'), before);
      add(s.c1, [tcp(9002)]);
      call('CHECK', s.c1, [tcp(9002)]);
    }
    sh('ip6tables -t nat -F');
    sh('ip6tables -t nat -X');
    assert.match(bad('portmap', 'CHECK', s.c1, config(s.c1, [tcp(9002)])).msg, /\(ipv6\)/);
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
    for (const family of ['ipv4', 'ipv6'] as const) {
      const text = saved('nat', family);
      assert.not.match(text, /\\"c1\\"|CNI-DN-c2d892b5/);
      assert.match(text, /dports 9003/);
      assert.match(text, /dports 9004/);
    }
    assert.not.match(sh('conntrack -L -p udp'), /sport=40010/);
    gc('net1', []);
    assert.not.match(saved('nat'), /dports 9003/);
    assert.match(saved('nat'), /dports 9004/);
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
    const lines = rules('nat');
    assert.is(new Set(lines).size, lines.length, 'no rule twice');
    assert.is(chainOf('CNI-HOSTPORT-DNAT').length, 80);
    for (const chain of [
      'PREROUTING',
      'OUTPUT',
      'POSTROUTING',
      'CNI-HOSTPORT-SETMARK',
      'CNI-HOSTPORT-MASQ',
    ]) {
      assert.is(chainOf(chain).length, 1, chain);
    }
  });

  s.test.run();
}
