/**
 * npm run bench -- startup [--rounds 60] [--json FILE]
 * From fork and exec to the reaped exit, turn by turn: the bare Node that is inside, our executables, and launchers with an agent; and how much memory a plugin
 * has when it waits for its configuration. The figure to hold: every executable at most 1.15 times `node -e 0`.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { nodeBase } from '../../build/node-binary.mjs';
import { race, type Candidate } from '../../build/measure.mjs';
import { executable, PLUGIN_NAMES } from '../support/executables.ts';
import { hasLaunchers, startAgent, stopAgent } from './chain/agent.ts';
import { describeMachine, onOwnHost } from './chain/machine.ts';
import { summarise } from './chain/statistics.ts';
import { AGENT } from './chain/suites.ts';

onOwnHost(import.meta.filename, process.argv.slice(2));

const LIMIT = 1.15;

const { values } = parseArgs({
  args: process.argv.slice(2),
  options: { rounds: { type: 'string', default: '60' }, json: { type: 'string' } },
});
const rounds = Number(values.rounds);
const base = nodeBase(resolve(import.meta.dirname, '../..'));

const BARE = 'node -e 0';
const STDIN = JSON.stringify({ cniVersion: '1.0.0', name: 'startup', type: 'bridge', ipam: {} });
const candidates: Candidate[] = [
  // Node ends at an option that it does not know, before V8 is set up: what loading the binary costs.
  { name: 'node --no-such-option', file: base.source, args: ['--no-such-option'], expected: 9 },
  { name: BARE, file: base.source, args: ['-e', '0'] },
  { name: 'node -e 0, prepared', file: base.file, args: ['-e', '0'] },
  ...PLUGIN_NAMES.map((name) => ({ name: `${name} (version)`, file: executable(name) })),
  { name: 'weft --version', file: executable('weft'), args: ['--version'] },
  { name: 'bridge VERSION', file: executable('bridge'), env: { CNI_COMMAND: 'VERSION' } },
  ...(hasLaunchers ? launcherCandidates() : []),
  // Environment, stdin, schema, error document: everything but the kernel.
  { name: 'bridge ADD, refused', file: executable('bridge'), env: refusedCall(), input: STDIN, expected: 1 },
];

console.log(`start to end of a process, ms, ${rounds} rounds turn by turn; ${describeMachine()}`);
if (hasLaunchers) startAgent();
const times = race(candidates, rounds);
const bare = summarise(times.get(BARE) ?? []).median;
const rows = candidates.map(({ name }) => ({ name, ...summarise(times.get(name) ?? []) }));
console.log('                              min   median      p95   x node -e 0');
for (const { name, min, median, p95 } of rows) {
  console.log(
    `${name.padEnd(24)} ${column(min)} ${column(median)} ${column(p95)} ${column(median / bare, 2)}`,
  );
}

stopAgent();
const memory = await memoryWhileWaiting();
const size = statSync(executable('bridge')).size;
console.log(
  `\nsize of the one file ${mib(size)}; the Node of npm ${mib(statSync(base.source).size)}, stripped ${mib(statSync(base.file).size)}`,
);
console.log(
  `memory while waiting for stdin: ${mib(memory.rss)}, of it not backed by the file ${mib(memory.own)}`,
);

const slow = rows.filter(({ name, median }) => name.endsWith('(version)') && median > LIMIT * bare);
if (values.json !== undefined)
  writeFileSync(
    values.json,
    JSON.stringify({ machine: describeMachine(), rounds, rows, memory, size }, null, 2),
  );
console.log(
  slow.length === 0
    ? `held: every plugin starts in at most ${LIMIT} times ${BARE}`
    : `MISSED: ${slow.map(({ name }) => name).join(', ')}`,
);
process.exitCode = slow.length === 0 ? 0 : 1;

/** The launcher passes these to the agent; without privileges it executes the plugin. */
function launcherCandidates(): Candidate[] {
  const [file, executes] = [
    `${AGENT.binDir}/bridge`,
    ['--bounding-set', '-net_raw', `${AGENT.binDir}/bridge`],
  ];
  const env = { CNI_COMMAND: 'VERSION' };
  return [
    { name: 'agent: bridge VERSION', file, env },
    { name: 'agent: ADD, refused', file, env: refusedCall(false), input: STDIN, expected: 1 },
    { name: 'launcher without agent', file: '/usr/bin/setpriv', args: executes, env },
  ];
}

/** @param hasNetns false: the launcher cannot open the namespace of a refused call and would execute the plugin */
function refusedCall(hasNetns = true): Record<string, string> {
  return {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: 'startup',
    ...(hasNetns && { CNI_NETNS: '/run/netns/startup' }),
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/nowhere',
  };
}

/** Bytes. A plugin that reads its stdin has everything loaded. */
async function memoryWhileWaiting(): Promise<{ rss: number; own: number }> {
  const child = spawn(executable('bridge'), { env: refusedCall(), stdio: ['pipe', 'ignore', 'ignore'] });
  const state = (): string => readFileSync(`/proc/${child.pid ?? 0}/stat`, 'utf8').split(') ')[1]?.[0] ?? '';
  const deadline = Date.now() + 5000;
  for (let quiet = 0; quiet < 5 && Date.now() < deadline;) {
    await pause(20);
    quiet = state() === 'S' ? quiet + 1 : 0;
  }
  const rollup = readFileSync(`/proc/${child.pid ?? 0}/smaps_rollup`, 'utf8');
  const bytes = (key: string): number =>
    1024 *
    [...rollup.matchAll(new RegExp(`^${key}:\\s+(\\d+) kB`, 'gm'))].reduce(
      (sum, [, kB]) => sum + Number(kB),
      0,
    );
  const result = { rss: bytes('Rss'), own: bytes('Anonymous') };
  child.stdin.end();
  await once(child, 'exit');
  return result;
}

function column(value: number, digits = 1): string {
  return value.toFixed(digits).padStart(8);
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
