import * as assert from 'uvu/assert';
import { bad, good, makeContainer, removeContainer, useHostVariant } from '../../../support/port-host.ts';
import { add, call, CHAIN, config, scene, tcp } from '../../../support/portmap-scene.ts';
import { rules, run, type Variant } from '../../../support/variants.ts';

/** A node whose `iptables` was switched to the other variant after ADD (update-alternatives, a new image). */
export function switchedVariantCases(first: Variant): void {
  const s = scene('the other variant of iptables holds the rules', first);
  const second: Variant = first === 'nft' ? 'legacy' : 'nft';
  s.test.beforeEach(() => {
    for (const variant of [second, first]) {
      useHostVariant(variant);
      for (const family of ['iptables', 'ip6tables'])
        for (const flag of ['-F', '-X']) run(family, '-t', 'nat', flag);
    }
  });

  s.test('CHECK finds the rules, and fails when one is lost', () => {
    add(s.c1, [tcp(9002)]);
    useHostVariant(second);
    call('CHECK', s.c1, [tcp(9002)]);
    useHostVariant(first);
    run('iptables', '-t', 'nat', '-F', CHAIN);
    useHostVariant(second);
    assert.match(bad('portmap', 'CHECK', s.c1, config(s.c1, [tcp(9002)])).msg, /incomplete/);
  });

  s.test('DEL and GC remove them', () => {
    const valid = { 'cni.dev/valid-attachments': [], cniVersion: '1.1.0' };
    for (const [command, more] of [
      ['DEL', {}],
      ['GC', valid],
    ] as const) {
      useHostVariant(first);
      add(s.c1, [tcp(9002)]);
      useHostVariant(second);
      good('portmap', command, s.c1, config(undefined, undefined, more));
      useHostVariant(first);
      assert.not.match([...rules('nat'), ...rules('nat', 'ipv6')].join('\n'), /CNI-DN|9002/, command);
    }
  });

  s.test('a second ADD moves them', () => {
    add(s.c1, [tcp(9002)]);
    useHostVariant(second);
    add(s.c1, [tcp(9002)]);
    assert.match(rules('nat').join('\n'), /9002/);
    useHostVariant(first);
    assert.not.match([...rules('nat'), ...rules('nat', 'ipv6')].join('\n'), /CNI-DN|9002/);
  });

  s.test('a running container’s port is refused, a dead one’s taken over', () => {
    add(s.c1, [tcp(9002)]);
    useHostVariant(second);
    const error = bad('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)]));
    assert.is(error.code, 11);
    assert.match(error.msg, /9002\/tcp is already in use by running container c1/);
    assert.not.match(rules('nat').join('\n'), /9002/);
    call('DEL', s.c1, [tcp(9002)]);
    useHostVariant(first);
    const dead = makeContainer('dead', 66);
    good('portmap', 'ADD', dead, config(dead, [tcp(9002)]));
    removeContainer(dead);
    useHostVariant(second);
    assert.match(add(s.c2, [tcp(9002)]).log, /taken over from container dead/);
    useHostVariant(first);
    assert.not.match(rules('nat').join('\n'), /9002/);
  });

  s.test.run();
}
