import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import { PLUGIN_NAMES } from '../../plugins/index.ts';
import { Random } from '../support/random.ts';
import { suite } from '../support/suite.ts';
import { makeCase } from './cases.ts';
import { inProcessFolder, runInProcess } from './in-process.ts';
import { describe, judge } from './judge.ts';

/** The same cases as in main.ts, without files, inside this process: each plugin sees enough of them. */
const test = suite('fuzz: protocol', { limit: 240 });

const SEED = Number(process.env['WEFT_FUZZ_SEED'] ?? 20260213);
const ROUNDS = Number(process.env['WEFT_FUZZ_ROUNDS'] ?? 120);

for (const name of PLUGIN_NAMES) {
  test(`${name}: ${ROUNDS} calls from seed ${SEED}`, async () => {
    execFileSync('sh', ['-c', 'ip netns del pod 2>/dev/null; ip netns add pod']);
    const kinds = new Set<string>();
    for (let round = 0; round < ROUNDS; round += 1) {
      const made = makeCase(new Random(SEED + round * 7919), inProcessFolder(), name);
      const { answer } = await runInProcess(made);
      try {
        kinds.add(judge(made, answer));
      } catch (thrown) {
        throw new Error(`round ${round}: ${String(thrown)}\n${describe(made, answer)}`, { cause: thrown });
      }
    }
    // Cases that all fail at the first check would prove nothing.
    for (const kind of ['ADD', 'DEL', '4', '6', '7'])
      assert.ok(kinds.has(kind), `no case came to ${kind}: ${[...kinds].join()}`);
  });
}

test.run();
