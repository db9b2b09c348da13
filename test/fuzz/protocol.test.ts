import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { Plugin } from '../../shared/cni/plugin.ts';
import { runPlugin } from '../../shared/cni/protocol.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { isOwnNamespace } from '../../shared/kernel/namespace.ts';
import { CASES, previousResult } from '../conformance/cases.ts';
import { PLUGIN_NAMES, pluginNamed, type PluginName } from '../../plugins/index.ts';
import { variables } from '../support/plugin.ts';
import { suite } from '../support/suite.ts';
import { corrupt, mutate } from './mutate.ts';
import { Random } from '../support/random.ts';

/**
 * Whatever a runtime sends, a plugin answers with one JSON document and a code of the contract, or with nothing and success,
 * and never with words of the language that it is written in. Run with WEFT_FUZZ_SEED and WEFT_FUZZ_ROUNDS for other cases.
 */
const test = suite('fuzz: protocol', { limit: 240 });

const SEED = Number(process.env['WEFT_FUZZ_SEED'] ?? 20260213);
const ROUNDS = Number(process.env['WEFT_FUZZ_ROUNDS'] ?? 120);
const NS = '/run/netns/pod';
/** Here host-local is the very program that runs this test, as it is the very executable of bridge in the suite: its work is done in process. */
const BIN = '/run/bin';

const CODES = [1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51, 999];
const LANGUAGE =
  /bug in the|is not a function|is not iterable|Cannot (read|convert|destructure|mix)|call stack|\[object |\bundefined\b|\bNaN\b|ERR_[A-Z]+|unexpected token/;

interface Case {
  environment: Record<string, string>;
  stdin: string;
}

interface Answer {
  exitCode: number;
  out: string;
  err: string;
}

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
      const made = makeCase(new Random(SEED + round * 7919), name);
      const answer = call(plugin, made);
      try {
        kinds.add(judge(made, answer));
      } catch (thrown) {
        const seen = JSON.stringify({ round, ...made, ...answer }, null, 1).slice(0, 6000);
        throw new Error(`${String(thrown)}\n${seen}`, { cause: thrown });
      }
    }
    // Cases that all fail at the first check would prove nothing.
    for (const kind of ['ADD', 'DEL', '4', '6', '7'])
      assert.ok(kinds.has(kind), `no case came to ${kind}: ${[...kinds].join()}`);
  });
}

function makeCase(random: Random, name: PluginName): Case {
  const { config, args = '' } = CASES[name];
  const cniVersion = random.pick([...CNI_VERSIONS, '1.1.0', '1.1.0']);
  const envelope = {
    cniVersion,
    name: 'fuzz',
    type: name,
    ...(random.chance(0.8) ? { prevResult: previousResult(cniVersion, NS) } : {}),
    ...(random.chance(0.3) ? { 'cni.dev/valid-attachments': [{ containerID: 'c1', ifname: 'eth0' }] } : {}),
  };
  // The plugin's own keys mostly: what surrounds them would be refused before the plugin sees them.
  const own = mutated(random, config, random.below(4));
  const merged: unknown = typeof own === 'object' ? { ...envelope, ...own } : own;
  const document = random.chance(0.2) ? mutated(random, merged, 1) : merged;
  const text = JSON.stringify(document);
  const environment: Record<string, string> = {
    ...variables({ id: 'c1', netns: NS, args: mutatedArgs(random, args), path: BIN }),
    CNI_COMMAND: random.pick(['ADD', 'ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION', 'FOO']),
  };
  if (random.chance(0.3)) {
    const variable = random.pick(Object.keys(environment));
    environment[variable] = random.pick([
      '',
      '..',
      'a b',
      'ä',
      '/',
      '/etc/passwd',
      '/run',
      ';=;==',
      'x'.repeat(300),
      '\u2028',
    ]);
  }
  return { environment, stdin: random.chance(0.15) ? corrupt(random, text) : text };
}

/** consul-tproxy's configuration is JSON inside of CNI_ARGS. */
function mutatedArgs(random: Random, args: string): string {
  const changed = args.replace(/\{.*\}/, (json) =>
    JSON.stringify(mutated(random, JSON.parse(json), random.below(3))),
  );
  return args !== '' && random.chance(0.2) ? corrupt(random, changed) : changed;
}

function mutated(random: Random, value: unknown, times: number): unknown {
  return times === 0 ? value : mutated(random, mutate(random, value), times - 1);
}

function call(plugin: Plugin<unknown>, { environment, stdin }: Case): Answer {
  const answer: Answer = { exitCode: -1, out: '', err: '' };
  answer.exitCode = runPlugin(plugin, {
    environment,
    readStdin: () => stdin,
    isOwnNamespace,
    writeOut: (text) => (answer.out += text),
    writeErr: (text) => (answer.err += text),
  });
  return answer;
}

/** @returns the verb that succeeded, or the error's code */
function judge({ environment }: Case, { exitCode, out, err }: Answer): string {
  assert.not.match(out + err, LANGUAGE);
  const command = environment['CNI_COMMAND'] ?? '';
  if (exitCode === 0) {
    if (command === 'ADD' || command === 'VERSION')
      assert.type((JSON.parse(out) as { cniVersion: unknown }).cniVersion, 'string');
    else assert.is(out, '');
    return command;
  }
  assert.is(exitCode, 1);
  const { code, msg, details } = JSON.parse(out) as { code: number; msg: string; details?: string };
  assert.ok(CODES.includes(code), `code ${code}`);
  assert.type(msg, 'string');
  assert.ok(msg.length > 0 && msg.length < 4000, 'a message of some length');
  assert.ok(details === undefined || (typeof details === 'string' && details.length < 20_000));
  if (command === 'DEL') assert.not.match(out, /not found/i);
  return String(code);
}

test.run();
