import * as assert from 'uvu/assert';
import { bad, good } from '../../../support/port-host.ts';
import { add, call, config, scene, tcp, udp, type Filter } from '../../../support/portmap-scene.ts';

/** Configurations that ADD rejects, ids and lists of unusual size: DEL removes what belongs to the container all the same. */
export function badInputCases(filter: Filter): void {
  const s = scene('invalid configurations, long ids, many mappings', filter, 300);
  const wrongValues = [-1, 'x', true, ['x', 1], { a: 1 }];

  s.test('DEL with any mistake in any key', () => {
    const keys =
      'backend snat masqAll markMasqBit externalSetMarkChain conditionsV4 conditionsV6 portConflict';
    const mistakes: object[] = [
      ...keys.split(' ').flatMap((key) => wrongValues.map((value) => ({ [key]: value }))),
      ...wrongValues.map((value) => ({ runtimeConfig: value })),
      ...wrongValues.map((portMappings) => ({ runtimeConfig: { portMappings } })),
      ...['hostPort', 'containerPort', 'protocol', 'hostIP', 'range'].flatMap((key) =>
        wrongValues.map((value) => ({ runtimeConfig: { portMappings: [{ ...tcp(9002), [key]: value }] } })),
      ),
      { runtimeConfig: { portMappings: [tcp(9002, 80), tcp(9002, 81)] } },
      { markMasqBit: 3, externalSetMarkChain: 'X' },
      { backend: 'nftables', conditionsV4: ['-s', '10.0.0.0/8'] },
      { backend: 'iptables', conditionsV4: ['ip', 'saddr', '10.0.0.0/8'] },
    ];
    const left: string[] = [];
    for (const mistake of mistakes) {
      add(s.c1, [tcp(9002)]);
      good('portmap', 'DEL', { ...s.c1, netns: '' }, { ...config(undefined, undefined), ...mistake });
      if (s.ruleset().includes('CNI-DN')) left.push(JSON.stringify(mistake));
    }
    assert.equal(left, []);
    assert.not.match(s.ruleset(), /CNI-DN|9002/);
  });

  s.test('container ids of more than 4,090 characters', () => {
    const long = { ...s.c1, id: 'x'.repeat(5_000) };
    good('portmap', 'ADD', long, config(long, [tcp(9002)]));
    good('portmap', 'CHECK', long, config(long, [tcp(9002)]));
    assert.is(bad('portmap', 'ADD', s.c2, config(s.c2, [tcp(9002)])).code, 11);
    good('portmap', 'DEL', long, config(undefined, undefined));
    assert.not.match(s.ruleset(), /CNI-DN|9002/);
  });

  s.test('GC of a network with a very long name leaves other networks with a similar name alone', () => {
    const name = 'n'.repeat(250);
    for (const suffix of ['a', 'b']) add(s.c1, [tcp(9002)], { name: name + suffix });
    const before = s.ruleset().match(/jump CNI-DN-|-j CNI-DN-/g)?.length;
    good('portmap', 'GC', s.c1, {
      ...config(undefined, undefined),
      name: `${name}a`,
      cniVersion: '1.1.0',
      'cni.dev/valid-attachments': [],
    });
    call('CHECK', s.c1, [tcp(9002)], { name: `${name}b` });
    assert.ok((before ?? 0) > 0);
  });

  s.test('a thousand mappings are added, checked and deleted well within the limit of a test', () => {
    const many = Array.from({ length: 1_000 }, (_, at) => (at % 2 === 0 ? tcp : udp)(20_000 + 2 * at, 80));
    for (const command of ['ADD', 'ADD', 'CHECK', 'DEL']) call(command, s.c1, many);
    assert.not.match(s.ruleset(), /CNI-DN/);
  });

  s.test(
    '65,535 mappings, more than ADD takes: each verb is quick, an error is a screenful, and DEL removes the rules',
    () => {
      add(s.c1, [tcp(9002)]);
      const many = Array.from({ length: 65_535 }, (_, at) => tcp(1 + at));
      const start = Date.now();
      const { code, msg } = bad('portmap', 'ADD', s.c2, config(s.c2, many));
      assert.is(code, 7);
      assert.match(msg, 'at most 16384 entries');
      assert.ok(msg.length < 2_000, msg);
      assert.ok(call('CHECK', s.c1, many).log.length < 2_000);
      good('portmap', 'DEL', s.c1, config(undefined, many));
      // Comparing all pairs took more than 90 s.
      assert.ok(Date.now() - start < 15_000);
      assert.not.match(s.ruleset(), /CNI-DN|9002/);
    },
  );

  s.test.run();
}
