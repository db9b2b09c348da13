import * as assert from 'uvu/assert';
import { good, nft } from '../../../support/port-host.ts';
import { changing, disturbedThenDeleted, everyStep, killAt, type Scenario } from '../../../support/steps.ts';
import { clear, saved } from '../../../support/variants.ts';
import { accepts, add, call, config, elements, scene, type Filter } from './scene.ts';

/** The plugin is killed before each system call that changes something. */
export function killedStepsCases(filter: Filter): void {
  const s = scene('killed before each change', filter, undefined, 600);
  const policed = { ingressPolicy: 'isolated' };
  const ruleset = (): string =>
    filter === 'nftables' ? nft('list ruleset') : `${saved('filter')}\n${saved('filter', 'ipv6')}`;
  const clean = (): void => {
    if (filter === 'nftables') nft('flush ruleset');
    else clear('filter');
  };
  const scenario = (command: 'ADD' | 'DEL'): Scenario => ({
    plugin: 'firewall',
    command,
    attachment: s.c1,
    config: config(s.c1, policed),
    prepare: () => {
      if (command === 'DEL') add(s.c1, policed);
    },
    clean,
  });
  /** Chains and the bridge's policy stay: other containers may use them. */
  const remove = (): void => {
    good('firewall', 'DEL', s.c1, config(undefined));
    assert.equal([...accepts(), ...accepts('ipv6'), ...elements()], []);
  };

  s.test('ADD killed at any step: ADD again completes it, and DEL leaves nothing', () => {
    add(s.c1, policed);
    const complete = ruleset();
    clean();
    everyStep(scenario('ADD'), changing, (step, _, disturbed) => {
      disturbed(killAt(step));
      add(s.c1, policed);
      assert.equal(ruleset().split('\n').toSorted(), complete.split('\n').toSorted());
      call('CHECK', s.c1, policed);
      remove();
    });
  });

  disturbedThenDeleted(s.test, scenario, remove);

  s.test.run();
}
