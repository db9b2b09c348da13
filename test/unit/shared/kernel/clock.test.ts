import * as assert from 'uvu/assert';
import { deadlineIn, sleep, waitUntil } from '../../../../shared/kernel/clock.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('clock');

function milliseconds(work: () => unknown): number {
  const start = process.hrtime.bigint();
  work();
  return Number(process.hrtime.bigint() - start) / 1e6;
}

test('sleep blocks for its time, fractions included', () => {
  assert.ok(milliseconds(() => sleep(20)) >= 19.9);
  assert.ok(milliseconds(() => sleep(0.5)) >= 0.45);
  assert.ok(milliseconds(() => sleep(0)) < 50);
  assert.ok(milliseconds(() => sleep(-5)) < 50);
});

test('a deadline passes when its time is over', () => {
  const deadline = deadlineIn(30);
  assert.ok(deadline.left() > 0 && deadline.left() <= 30);
  assert.not.ok(deadline.passed());
  sleep(31);
  assert.ok(deadline.passed());
  assert.ok(deadline.left() <= 0);
  assert.ok(deadlineIn(0).passed());
});

test('waitUntil asks again until it is true, and not longer than its time', () => {
  let asked = 0;
  assert.is(
    waitUntil(5000, () => ++asked === 4),
    true,
  );
  assert.is(asked, 4);
  assert.is(
    waitUntil(5000, () => true),
    true,
  );
  const took = milliseconds(() =>
    assert.is(
      waitUntil(60, () => false),
      false,
    ),
  );
  assert.ok(took >= 59 && took < 1000, `${took} ms`);
});

test('waitUntil asks once more at the end, and at least once', () => {
  let asked = 0;
  waitUntil(0, () => ++asked < 0);
  assert.is(asked, 1);
  assert.throws(
    () =>
      waitUntil(100, () => {
        throw new Error('from the question');
      }),
    /from the question/,
  );
});

test.run();
