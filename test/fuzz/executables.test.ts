import * as assert from 'uvu/assert';
import { suite } from '../support/suite.ts';
import { runGroup } from './group.ts';

/** A short run of `npm run fuzz`. */
const test = suite('fuzz: executables', { limit: 120 });

const CASES = 60;
const seed = Date.now() % 1_000_000_007;

test(`${CASES} hostile calls from seed ${seed} beside hostile files end with an answer, and change nothing of others`, async () => {
  const { failures, outcomes } = await runGroup({ seed, first: 0, cases: CASES });
  assert.is(
    failures.length,
    0,
    `repeat: npm run fuzz -- --seed ${seed} --cases ${CASES}\n${failures.join('\n')}`,
  );
  assert.ok(outcomes.size > 4, [...outcomes].join());
});

test.run();
