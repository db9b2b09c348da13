import * as assert from 'uvu/assert';
import { good, HOST } from '../../../support/port-host.ts';
import { add, call, config, scene, tcp, udp, type Filter } from '../../../support/portmap-scene.ts';
import { changing, disturbedThenDeleted, everyStep, killAt, type Scenario } from '../../../support/steps.ts';
import { clear, run } from '../../../support/variants.ts';

/** The plugin dies before each system call that changes something. */
export function killedStepsCases(filter: Filter): void {
  const s = scene('killed before each change', filter, 600);
  const mappings = [tcp(9002), udp(9002), { ...tcp(9003), hostIP: HOST.ipv4 }];
  const clean = (): void => {
    if (filter === 'nftables') run('nft', 'flush', 'ruleset');
    else clear('nat');
  };
  const scenario = (command: 'ADD' | 'DEL'): Scenario => ({
    plugin: 'portmap',
    command,
    attachment: s.c1,
    config: config(s.c1, mappings),
    prepare: () => {
      if (command === 'DEL') add(s.c1, mappings);
    },
    clean,
  });
  const remove = (): void => {
    good('portmap', 'DEL', s.c1, config(undefined, undefined));
    assert.not.match(s.ruleset(), /CNI-DN|900[23]|10\.88\.0\.11/);
  };

  s.test('ADD killed at any step: ADD again completes it, and DEL leaves nothing', () => {
    add(s.c1, mappings);
    const complete = s.ruleset();
    clean();
    everyStep(scenario('ADD'), changing, (step, _, disturbed) => {
      disturbed(killAt(step));
      add(s.c1, mappings);
      assert.equal(s.ruleset().split('\n').toSorted(), complete.split('\n').toSorted());
      assert.is(call('CHECK', s.c1, mappings).log, '');
      remove();
    });
  });

  disturbedThenDeleted(s.test, scenario, remove);

  s.test.run();
}
