import * as assert from 'uvu/assert';
import { Watcher } from '../../../../agent/repair/watcher.ts';
import type { RepairReport } from '../../../../agent/repair/repairer.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('when the agent repairs');

/** A host with a clock that only the test moves. */
class FakeHost {
  clock = 0;
  deletions = false;
  print = 'same';
  missing: string[] = [];
  looks: number[] = [];
  milliseconds = 10;
  readonly lines: string[] = [];
  readonly watcher: Watcher;
  readonly #write: boolean;

  constructor(write = true) {
    this.#write = write;
    this.watcher = new Watcher(
      {
        now: () => this.clock,
        hasDeletions: () => {
          const had = this.deletions;
          this.deletions = false;
          return had;
        },
        fingerprint: () => this.print,
        repair: () => this.#look(),
      },
      (level, line) => this.lines.push(`${level} ${line}`),
      write,
    );
    this.pass(5_000);
    this.looks = [];
  }

  /** As the agent: a step every 100 ms. */
  pass(milliseconds: number, each: () => void = () => undefined): void {
    for (const end = this.clock + milliseconds; this.clock < end; this.clock += 100) {
      each();
      this.watcher.step();
    }
  }

  #look(): RepairReport {
    this.looks.push(this.clock);
    const { missing, milliseconds } = this;
    if (this.#write && missing.length > 0) [this.missing, this.print] = [[], 'same'];
    return { attachments: 1, missing, left: this.#write ? [] : missing, problems: [], milliseconds };
  }
}

test('a look soon after a deletion, and once more after a repair; none while nothing happens', () => {
  const host = new FakeHost();
  host.pass(60_000);
  assert.equal(host.looks, []);
  host.deletions = true;
  host.missing = ['a rule'];
  const began = host.clock;
  host.pass(20_000);
  assert.equal(
    host.looks.map((at) => at - began),
    [100, 2_100],
  );
  assert.match(host.lines.join('\n'), 'warning repair: restored=1 missing=1 attachments=1 ms=10: a rule');
});

test('changes without notification are found within 30 seconds', () => {
  const host = new FakeHost();
  host.pass(60_000);
  host.looks = [];
  host.print = 'other';
  host.pass(31_000);
  assert.is(host.looks.length, 1);
});

test('rules that are deleted without notification soon after a repair are restored within 30 seconds, too', () => {
  const host = new FakeHost();
  for (let repairs = 1; repairs <= 3; repairs++) {
    host.missing = ['a rule'];
    host.print = 'without the rule';
    host.pass(31_000);
    assert.is(host.watcher.counts.repairs, repairs);
  }
});

test('while another program deletes rules all the time, looks take 4 % of the time, after some at once', () => {
  const host = new FakeHost();
  host.milliseconds = 200;
  const damage = (): void => void (host.deletions = true);
  host.pass(10_000, damage);
  assert.ok(host.looks.length >= 9, String(host.looks.length));
  host.pass(60_000, damage);
  host.looks = [];
  host.pass(100_000, damage);
  assert.ok(host.looks.length > 15 && host.looks.length <= 21, String(host.looks.length));
});

test('a look after a deletion never waits because of earlier looks that had another reason, or found rules missing', () => {
  const host = new FakeHost();
  // As with 1,000 containers on a slow machine.
  host.milliseconds = 1_500;
  for (let round = 1; round <= 12; round++) {
    host.print = `kernel parameters ${round}`;
    host.pass(9_900);
    const began = host.clock;
    host.deletions = true;
    host.missing = ['a rule'];
    host.looks = [];
    host.pass(300);
    assert.equal(host.looks, [began + 100], `round ${round}`);
  }
  assert.is(host.watcher.counts.repairs, 12);
});

test('repair pauses when rules are missing again after each of five repairs, and goes on later', () => {
  const host = new FakeHost();
  const damage = (): void => {
    host.deletions = true;
    host.missing = ['rule is missing from chain CNI-FORWARD of table filter (ipv4): x'];
  };
  host.pass(60_000, damage);
  assert.is(host.watcher.counts.repairs, 5);
  assert.match(
    host.lines.join('\n'),
    /error repair: paused for 5 minutes: .*, in table filter \(ipv4\); find it/,
  );
  host.pass(301_000);
  assert.is(host.watcher.counts.repairs, 6);
  host.lines.length = 0;
  host.pass(60_000, () => {
    host.deletions = true;
    host.missing = ['missing: add element ip weft_hostports ports'];
  });
  assert.match(host.lines.join('\n'), /error repair: paused .*, in add element ip weft_hostports; find it/);
});

test('log mode: every missing piece once, as long as the same ones are missing; a look every 30 seconds meanwhile', () => {
  const host = new FakeHost(false);
  host.lines.length = 0;
  host.missing = ['one', 'two'];
  host.pass(30_000, () => (host.deletions = true));
  assert.equal(host.lines, ['warning repair: one', 'warning repair: two']);
  host.missing = ['two'];
  host.looks = [];
  host.pass(60_000);
  assert.is(host.looks.length, 2);
  assert.equal(host.lines.slice(2), ['warning repair: two']);
});

test.run();
