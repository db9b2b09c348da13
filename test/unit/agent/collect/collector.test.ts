import * as assert from 'uvu/assert';
import { Collector } from '../../../../agent/collect/collector.ts';
import type { Leak } from '../../../../agent/collect/judge.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('when the agent collects');

function leak(containerId: string): Leak {
  const belongings = { network: 'net1', containerId, entries: [], traces: [], newestMs: 0 };
  return { ...belongings, verdict: 'leak', reason: 'gone', ageSeconds: 900 };
}

/** A host with a clock that only the test moves. */
class FakeHost {
  clock = 0;
  /** Of a look. */
  milliseconds = 0;
  leaks: Leak[] = [];
  looks = 0;
  failure: Error | undefined;
  readonly lines: string[] = [];
  readonly collector: Collector;

  constructor(write: boolean) {
    const host = {
      now: () => this.clock,
      look: () => {
        this.looks += 1;
        this.clock += this.milliseconds;
        if (this.failure !== undefined) throw this.failure;
        return { leaks: this.leaks, doubts: [] };
      },
      remove: (leak: Leak) => {
        if (leak.containerId === 'stuck') throw new Error('busy');
        this.leaks = this.leaks.filter((one) => one !== leak);
        return leak.containerId !== 'back';
      },
    };
    this.collector = new Collector(host, (level, line) => this.lines.push(`${level} ${line}`), write);
  }

  pass(minutes: number): string[] {
    for (const end = this.clock + minutes * 60_000; this.clock < end; this.clock += 1_000)
      this.collector.step();
    return this.lines.splice(0);
  }
}

test('"log": a look every ten minutes; each leak is logged once, again when it was gone in between', () => {
  const host = new FakeHost(false);
  host.leaks = [leak('a')];
  assert.equal(host.pass(30), ['warning gc: leak network=net1 container=a age=900s: gone; ']);
  assert.is(host.looks, 3);
  assert.equal(host.collector.counts, { looks: 3, leaks: 1, removed: 0, failures: 0 });
  host.leaks = [];
  assert.equal(host.pass(10), []);
  host.leaks = [leak('a')];
  assert.is(host.pass(10).length, 1);
});

test('looks that take long are made less often', () => {
  const host = new FakeHost(false);
  host.milliseconds = 450;
  host.pass(121);
  assert.is(host.looks, 3, 'one an hour');
});

test('"on": one removal a step; one that fails is tried again after the next look', () => {
  const host = new FakeHost(true);
  host.leaks = [leak('a'), leak('stuck'), leak('back'), leak('b')];
  host.collector.step();
  host.collector.step();
  assert.equal(
    host.leaks.map(({ containerId }) => containerId),
    ['stuck', 'back', 'b'],
  );
  const lines = host.pass(1).filter((line) => !line.includes('gc: leak'));
  assert.equal(lines, [
    'warning gc: removed network=net1 container=a pieces=0 ms=0',
    'error gc: cannot remove network=net1 container=stuck: busy',
    'warning gc: removed network=net1 container=b pieces=0 ms=0',
  ]);
  assert.equal(host.collector.counts, { looks: 1, leaks: 2, removed: 2, failures: 1 });
  assert.equal(host.pass(10), ['error gc: cannot remove network=net1 container=stuck: busy']);
});

test('a look that fails is logged, and tried again ten minutes later', () => {
  const host = new FakeHost(true);
  host.failure = new Error('no netlink');
  assert.equal(host.pass(10), ['error gc: failed: no netlink']);
  host.failure = undefined;
  assert.equal([host.pass(10), host.looks], [[], 2]);
});

test.run();
