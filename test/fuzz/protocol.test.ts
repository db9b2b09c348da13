import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { runPlugin } from '../../shared/cni/protocol.ts';
import { isOwnNamespace } from '../../shared/kernel/namespace.ts';
import { PLUGIN_NAMES, pluginNamed } from '../../plugins/index.ts';
import { Random } from '../support/random.ts';
import { suite } from '../support/suite.ts';
import { makeCase, type Case } from './cases.ts';
import { describe, judge, type Answer } from './judge.ts';

/** The same cases as in main.ts, without files, on plugins inside this process: fast, and each plugin sees enough of them. */
const test = suite('fuzz: protocol', { limit: 240 });

const SEED = Number(process.env['WEFT_FUZZ_SEED'] ?? 20260213);
const ROUNDS = Number(process.env['WEFT_FUZZ_ROUNDS'] ?? 120);
/** Here host-local is the very program that runs this test, as it is the very executable of bridge in the suite: its work is done in process. */
const BIN = '/run/bin';

test.before(() => {
  mkdirSync(BIN);
  symlinkSync(process.execPath, `${BIN}/host-local`);
});

for (const name of PLUGIN_NAMES) {
  test(`${name}: ${ROUNDS} calls from seed ${SEED}`, async () => {
    const plugin = await pluginNamed(name)?.load();
    assert.ok(plugin);
    execFileSync('sh', ['-c', 'ip netns del pod 2>/dev/null; ip netns add pod']);
    const kinds = new Set<string>();
    for (let round = 0; round < ROUNDS; round += 1) {
      const made = makeCase(new Random(SEED + round * 7919), BIN, name);
      const answer = call(made);
      try {
        kinds.add(judge(made, answer));
      } catch (thrown) {
        throw new Error(`round ${round}: ${String(thrown)}\n${describe(made, answer)}`, { cause: thrown });
      }
    }
    // Cases that all fail at the first check would prove nothing.
    for (const kind of ['ADD', 'DEL', '4', '6', '7'])
      assert.ok(kinds.has(kind), `no case came to ${kind}: ${[...kinds].join()}`);

    function call({ environment, stdin }: Case): Answer {
      let out = '';
      let err = '';
      const exitCode = runPlugin(plugin as NonNullable<typeof plugin>, {
        environment,
        readStdin: () => stdin,
        isOwnNamespace,
        configurationOfAdd: () => undefined,
        writeOut: (text) => (out += text),
        writeErr: (text) => (err += text),
      });
      return { exitCode, out, err };
    }
  });
}

test.run();
