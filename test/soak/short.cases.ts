import { suite } from '../support/suite.ts';
import { soak } from './soak.ts';
import { makeWorld, type Backend, type World } from './world.ts';

/** A short run of `npm run soak` on one back end: one seed that is always the same, and one that is new each time. */
export function shortSoak(backend: Backend): void {
  const test = suite(`soak on ${backend}`, { limit: 240 });
  let world: World;
  test.before(async () => {
    world = await makeWorld(backend);
  });
  test.after(() => world.outside.stop());
  for (const [seed, ops] of [
    [20260213, 40],
    [Date.now() % 1_000_000_007, 20],
  ] as const) {
    test(`${ops} random operations from seed ${seed}: the host is as the model says after each`, () =>
      soak(world, { backend, seed, ops, parallel: 8 }));
  }
  test.run();
}
