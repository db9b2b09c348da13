import type { CniResult } from '../../../../shared/cni/results.ts';
import { succeed } from '../../../support/plugin.ts';
import { changing, everyStep, failAt, killAt } from '../../../support/steps.ts';
import { suite } from '../../../support/suite.ts';
import { assertClean, assertComplete, c1, scenario, VARIANTS } from './faults.ts';
import { cleanHost, sh } from './host.ts';

const test = suite('bridge: killed before each change', { limit: 900 });
test.beforeEach(cleanHost);
test.after(cleanHost);

for (const [name, own] of Object.entries(VARIANTS)) {
  test(`${name}: killed at any step of ADD; ADD again completes it, and DEL leaves nothing`, () => {
    everyStep(scenario('ADD', own), changing, (step, _, disturbed) => {
      disturbed(killAt(step));
      assertComplete(succeed('bridge', 'ADD', c1, own) as CniResult, own);
      succeed('bridge', 'DEL', c1, own);
      assertClean();
    });
  });

  test(`${name}: killed at any step of ADD; DEL alone leaves nothing, with and without the namespace`, () => {
    everyStep(scenario('ADD', own), changing, (step, at, disturbed) => {
      disturbed(killAt(step));
      if (at % 2 === 1) sh('ip netns del c1');
      succeed('bridge', 'DEL', c1, own);
      assertClean();
    });
  });

  test(`${name}: killed, or a system call fails, at any step of DEL; DEL again leaves nothing`, () => {
    everyStep(scenario('DEL', own), changing, (step, at, disturbed) => {
      disturbed(at % 2 === 0 ? killAt(step) : failAt(step));
      succeed('bridge', 'DEL', c1, own);
      assertClean();
    });
  });
}

test.run();
