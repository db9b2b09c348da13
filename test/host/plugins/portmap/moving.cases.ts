import { readlinkSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { clear, run, saved, type Variant } from '../../../support/variants.ts';
import { runPluginProcess, variables } from '../../../support/plugin.ts';
import { add, call, config, node, scene, tcp, udp } from '../../../support/portmap-scene.ts';
import { ask, bad, good, HOST, makeContainer, removeContainer } from '../../../support/port-host.ts';

/** A node that is moved from one backend to the other while containers run. No backend is named by the network. */
export function movingCases(variant: Variant): void {
  const s = scene('moving to nftables and back', variant);
  s.test.beforeEach(() => {
    run('nft', 'flush ruleset');
    clear('nat');
  });
  const toNftables = (): void => node({ backend: 'nftables' });
  const toIptables = (): void => node(undefined);
  // Without counters: a packet of a connection of before may still be on its way.
  const everything = (): string => `${s.ruleset()}\n${run('nft', '--stateless', 'list', 'ruleset')}`;
  const reached = (port: number): string[] =>
    [HOST.ipv4, HOST.ipv6].map((address) => ask('outside', 'tcp', address, port).replace(/ .*/, ''));

  s.test('everybody keeps its ports, CHECK passes and changes nothing, DEL cleans either', () => {
    add(s.c1, [tcp(9002), udp(9002)]);
    toNftables();
    add(s.c2, [tcp(9003)]);
    const before = everything();
    call('CHECK', s.c1, [tcp(9002), udp(9002)]);
    call('CHECK', s.c2, [tcp(9003)]);
    toIptables();
    call('CHECK', s.c1, [tcp(9002), udp(9002)]);
    call('CHECK', s.c2, [tcp(9003)]);
    assert.is(everything(), before);
    assert.equal([...reached(9002), ...reached(9003)], ['one', 'one', 'two', 'two']);
    call('DEL', s.c2, [tcp(9003)]);
    assert.not.match(everything(), /9003/, 'made by nftables, removed while iptables is chosen');
    toNftables();
    call('DEL', s.c1, [tcp(9002)]);
    assert.not.match(everything(), /9002/, 'made by iptables, removed while nftables is chosen');
  });

  s.test(
    'CHECK of a container that is complete nowhere names what is missing where it would be made today',
    () => {
      add(s.c1, [tcp(9002)]);
      toNftables();
      clear('nat');
      assert.match(
        bad('portmap', 'CHECK', s.c1, config(s.c1, [tcp(9002)])).msg,
        /table ip weft_hostports is missing/,
      );
    },
  );

  s.test('a second ADD leaves its rules in one backend only, whatever the address was before', () => {
    add(s.c1, [tcp(9002)]);
    toNftables();
    const other = { ...s.c1, prevResult: s.c2.prevResult };
    good('portmap', 'ADD', other, config(other, [tcp(9002)]));
    assert.not.match(saved('nat') + saved('nat', 'ipv6'), /9002|CNI-DN/);
    assert.equal(reached(9002), ['two', 'two']);
    toIptables();
    add(s.c1, [tcp(9002)]);
    assert.not.match(run('nft', 'list', 'table', 'ip', 'weft_hostports'), /9002|CNI-DN/);
    assert.equal(reached(9002), ['one', 'one']);
  });

  s.test(
    'a port that a living container holds in the other backend is refused, a dead one’s taken over',
    () => {
      for (const [first, second] of [
        [toIptables, toNftables],
        [toNftables, toIptables],
      ] as const) {
        first();
        add(s.c1, [tcp(9002)]);
        second();
        const before = everything();
        const error = bad('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)]));
        assert.match(
          error.msg,
          /^host port 9002\/tcp is already in use by running container c1 of network net1 \(10\.88\.0\.11\)/,
        );
        assert.is(leaders(everything()), leaders(before));
        call('DEL', s.c1, []);
        call('DEL', s.c1, [tcp(9002)]);
        first();
        const dead = makeContainer('dead', 66);
        good('portmap', 'ADD', dead, config(dead, [tcp(9002)]));
        removeContainer(dead);
        second();
        assert.match(
          add(s.c2, [tcp(9002)]).log,
          /host port 9002\/tcp: taken over from container dead of network net1/,
        );
        assert.not.match(everything(), /\bdead\b|10\.88\.0\.66/);
        assert.equal(reached(9002), ['two', 'two']);
        call('DEL', s.c2, [tcp(9002)]);
      }
    },
  );

  if (variant === 'legacy')
    s.test('a former back end that fails is a warning', () => {
      const link = '/etc/alternatives/iptables-restore';
      const program = readlinkSync(link);
      add(s.c1, [tcp(9002)]);
      toNftables();
      rmSync(link);
      symlinkSync('/bin/false', link);
      try {
        const stdin = config(s.c1, [tcp(9002)]);
        const refused = 'getsockopt:error=ENOPROTOOPT';
        const { exitCode, stderr } = runPluginProcess('portmap', {
          command: 'ADD',
          env: variables(s.c1),
          stdin,
          refused,
        });
        assert.is(exitCode, 0);
        assert.match(stderr, /could not look for older port mappings in iptables: /);
        assert.equal(reached(9002), ['one', 'one']);
      } finally {
        rmSync(link);
        symlinkSync(program, link);
      }
      call('DEL', s.c1, [tcp(9002)]);
      assert.not.match(everything(), /9002/);
    });

  s.test('an invalid weft.json fails ADD, but neither CHECK nor DEL', () => {
    add(s.c1, [tcp(9002)]);
    node({});
    writeFileSync('/etc/weft/weft.json', '{');
    assert.throws(() => add(s.c2, [tcp(9003)]), /weft\.json/);
    call('CHECK', s.c1, [tcp(9002)]);
    call('DEL', s.c1, [tcp(9002)]);
    toIptables();
    assert.not.match(everything(), /9002|9003/);
  });

  s.test('GC cleans both, whichever is chosen', () => {
    add(s.c1, [tcp(9002)]);
    toNftables();
    add(s.c2, [tcp(9003)]);
    const valid = { 'cni.dev/valid-attachments': [], cniVersion: '1.1.0' };
    good('portmap', 'GC', s.c1, config(undefined, undefined, valid));
    assert.not.match(everything(), /9002|9003/);
  });

  s.test.run();
}

/** Lines that lead a port to a container; shared parts may have come. */
function leaders(text: string): string {
  return text
    .split('\n')
    .filter((line) => /CNI-DN-/.test(line))
    .join('\n');
}
