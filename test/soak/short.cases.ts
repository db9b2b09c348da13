import { suite } from '../support/suite.ts';
import { rounds } from '../support/thorough.ts';
import { learnHost } from './learn.ts';
import type { Host } from './operations.ts';
import { soak } from './soak.ts';
import { makeWorld, stopWorld, type Backend } from './world.ts';

/** A short run of `npm run soak` on one back end: one seed that is always the same, and one that is new each time. */
export function shortSoak(backend: Backend): void {
  const test = suite(`soak on ${backend}`, { limit: 240 });
  let host: Host;
  test.before(async () => {
    host = await learnHost(await makeWorld(backend));
  });
  test.after(() => stopWorld(host.world));
  for (const [seed, ops] of [
    [20260213, rounds(100, 20)],
    [Date.now() % 1_000_000_007, rounds(100, 10)],
  ] as const) {
    test(`${ops} random operations from seed ${seed}: the host is as the model says after each`, async () => {
      await soak(host, { backend, seed, ops, parallel: 24 });
    });
  }
  test.run();
}
