import type { CniResult } from '../../../../shared/cni/types.ts';
import { succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { assertClean, assertComplete, c1, ERRORS, everyStep, VARIANTS } from './faults.ts';
import { cleanHost, sh } from './host.ts';
import { trace } from './strace.ts';

const test = suite('bridge: killed at a step', { limit: 900 });
test.beforeEach(cleanHost);
test.after(cleanHost);

for (const [name, own] of Object.entries(VARIANTS)) {
  test(`${name}: killed at whichever step of ADD; ADD again completes it, and DEL leaves nothing`, () => {
    everyStep(
      'ADD',
      own,
      ({ changes }) => changes,
      ({ syscall, when }) => {
        trace('ADD', c1, own, `${syscall}:signal=SIGKILL:when=${when}`);
        assertComplete(succeed('bridge', 'ADD', c1, own) as CniResult, own);
        succeed('bridge', 'DEL', c1, own);
        assertClean();
      },
    );
  });

  test(`${name}: killed at whichever step of ADD; DEL alone leaves nothing, with and without the namespace`, () => {
    everyStep(
      'ADD',
      own,
      ({ changes }) => changes,
      ({ syscall, when }, at) => {
        trace('ADD', c1, own, `${syscall}:signal=SIGKILL:when=${when}`);
        if (at % 2 === 1) sh('ip netns del c1');
        succeed('bridge', 'DEL', c1, own);
        assertClean();
      },
    );
  });

  test(`${name}: killed, or refused, at whichever step of DEL; DEL again leaves nothing`, () => {
    everyStep(
      'DEL',
      own,
      ({ changes }) => changes,
      ({ syscall, when }, at) => {
        const how = at % 2 === 0 ? 'signal=SIGKILL' : `error=${ERRORS[syscall] ?? 'ENOMEM'}`;
        succeed('bridge', 'ADD', c1, own);
        trace('DEL', c1, own, `${syscall}:${how}:when=${when}`);
        succeed('bridge', 'DEL', c1, own);
        assertClean();
      },
    );
  });
}

test.run();
