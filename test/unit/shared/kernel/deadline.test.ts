import * as assert from 'uvu/assert';
import {
  CALL_LIMIT_MS,
  deadlineIn,
  sleep,
  timeoutError,
  waitUntil,
  withCallDeadline,
  withRollbackTime,
} from '../../../../shared/kernel/deadline.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('deadline');

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

test('a deadline passes after its time', () => {
  const deadline = deadlineIn(30);
  assert.ok(deadline.remainingMs() > 0 && deadline.remainingMs() <= 30);
  assert.not.ok(deadline.passed());
  sleep(31);
  assert.ok(deadline.passed());
  assert.ok(deadline.remainingMs() <= 0);
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

test('no wait of a call goes beyond its deadline, however many there are', () => {
  const took = milliseconds(() =>
    withCallDeadline(() => {
      for (let waits = 0; waits < 10; waits++) waitUntil(1000, () => false);
    }, 50),
  );
  assert.ok(took >= 49 && took < 900, `${took} ms`);
});

test('each call has its own deadline, and between calls a wait has its own limit', () => {
  const left = (): number => deadlineIn(60_000).remainingMs();
  for (let call = 0; call < 2; call++) {
    withCallDeadline(() => {
      assert.ok(left() <= CALL_LIMIT_MS && left() > CALL_LIMIT_MS - 1000);
      sleep(5);
    });
  }
  assert.ok(left() > 50_000);
  assert.throws(() =>
    withCallDeadline(() => {
      throw new Error('failed');
    }),
  );
  assert.ok(left() > 50_000, 'after a call that failed, too');
});

test('a rollback has time of its own, once', () => {
  withCallDeadline(() => {
    sleep(20);
    assert.ok(deadlineIn().passed());
    const left = (): number => withRollbackTime(() => deadlineIn().remainingMs());
    const first = left();
    assert.ok(first > 1000 && first < 3000);
    sleep(10);
    assert.ok(left() < first - 9, 'the second one does not begin anew');
  }, 10);
});

test('the error says what was waited for, how long, and for which process', () => {
  const wait = deadlineIn(100);
  sleep(101);
  const error = timeoutError('waiting for lock /run/x', wait, { holder: 'process 12 (iptables)' });
  assert.is(error.code, 11);
  assert.match(
    error.message,
    /^timed out after 0\.\d s waiting for lock \/run\/x, held by process 12 \(iptables\)$/,
  );
  assert.is(error.details, 'a plugin call may take 10 s in total');
});

test.run();
