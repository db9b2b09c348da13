/**
 * npm run fuzz -- --launcher [--seconds 60]: see launcher.ts.
 * npm run fuzz [-- --cases 5000] [--seed S] [--first N] [--parallel 2] [--bin dist/agent | --bin dist/bin | --in-process] [--thorough]
 * Hostile calls of every plugin's executable: mutated configurations, variables and arguments, beside hostile files in the places that plugins
 * read. Each must end with one JSON error or with success, within 5 s and 400 MiB, and change nothing that is not the plugin's. Cases run in groups,
 * each on a private host; a failure names the command that repeats its group.
 */
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { manyCallsBin } from '../support/executables.ts';
import { agentFor, ON_OWN_HOST } from '../support/own-host.ts';
import { runGroup } from './group.ts';
import { fuzzLauncher } from './launcher.ts';

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: '5000' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000_007) },
    first: { type: 'string', default: '0' },
    parallel: { type: 'string', default: '2' },
    bin: { type: 'string', default: manyCallsBin() },
    'in-process': { type: 'boolean', default: false },
    thorough: { type: 'boolean', default: false },
    'on-own-host': { type: 'boolean', default: false },
    launcher: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '60' },
  },
});
const seed = Number(values.seed);
const first = Number(values.first);
const cases = Number(values.cases);
const GROUP = 500;
/** Far more than a group takes on a busy machine; one that takes longer hangs. */
const GROUP_SECONDS = 600;

interface Totals {
  readonly outcomes: Map<string, number>;
  seconds: number;
  mebibytes: number;
  failed: number;
}

if (values.launcher) process.exitCode = fuzzLauncher(Number(values.seconds));
else if (values['on-own-host']) await here();
else await elsewhere();

async function here(): Promise<void> {
  const group = { seed, first, cases, isInProcess: values['in-process'], isThorough: values.thorough };
  const { outcomes, slowest, largest, failures } = await runGroup(group);
  console.log(
    JSON.stringify({
      outcomes: [...outcomes],
      seconds: slowest.seconds,
      mebibytes: largest.mebibytes,
      failures,
    }),
  );
}

async function elsewhere(): Promise<void> {
  console.log(`${cases} cases, seed ${seed}`);
  const began = Date.now();
  const totals: Totals = { outcomes: new Map(), seconds: 0, mebibytes: 0, failed: 0 };
  const starts = Array.from({ length: Math.ceil(cases / GROUP) }, (_, at) => first + at * GROUP);
  let done = 0;
  const worker = async (): Promise<void> => {
    for (let start = starts.shift(); start !== undefined; start = starts.shift()) {
      const size = Math.min(GROUP, first + cases - start);
      await oneGroup(start, size, totals);
      done += size;
      if (Math.floor(done / 2000) > Math.floor((done - size) / 2000)) console.log(`${done} cases`);
    }
  };
  await Promise.all(Array.from({ length: Number(values.parallel) }, worker));
  const kinds = [...totals.outcomes].sort().map(([kind, count]) => `${kind}: ${count}`);
  console.log(`outcomes: ${kinds.join(', ')}`);
  console.log(
    `${totals.failed === 0 ? 'held' : `FAILED ${totals.failed} times`} for ${done} cases in ${((Date.now() - began) / 1000).toFixed(0)} s; ` +
      `slowest ${totals.seconds.toFixed(1)} s, largest ${totals.mebibytes.toFixed(0)} MiB`,
  );
  process.exitCode = totals.failed === 0 && done > 0 ? 0 : 1;
}

async function oneGroup(start: number, size: number, totals: Totals): Promise<void> {
  const mode = values['in-process'] ? ' --in-process' : '';
  const repeat = `--seed ${seed} --first ${start} --cases ${size}${mode}`;
  const text = await output(start, size);
  let report: { outcomes: [string, number][]; seconds: number; mebibytes: number; failures: string[] };
  try {
    report = JSON.parse(text.trimEnd().split('\n').at(-1) ?? '') as typeof report;
  } catch {
    report = {
      outcomes: [],
      seconds: 0,
      mebibytes: 0,
      failures: [`the group did not end as it should: ${text}`],
    };
  }
  for (const [kind, count] of report.outcomes)
    totals.outcomes.set(kind, (totals.outcomes.get(kind) ?? 0) + count);
  totals.seconds = Math.max(totals.seconds, report.seconds);
  totals.mebibytes = Math.max(totals.mebibytes, report.mebibytes);
  totals.failed += report.failures.length;
  for (const failure of report.failures)
    console.log(`FAILED ${failure}\n  repeat: npm run fuzz -- ${repeat}`);
}

function output(start: number, size: number): Promise<string> {
  const args = [
    '--seed',
    values.seed,
    '--first',
    String(start),
    '--cases',
    String(size),
    '--bin',
    resolve(values.bin),
  ];
  const flags = (['thorough', 'in-process'] as const)
    .filter((flag) => values[flag])
    .map((flag) => `--${flag}`);
  const options = [...args, '--on-own-host', ...flags];
  const child = spawn(
    'unshare',
    [...ON_OWN_HOST, process.execPath, '--no-warnings', import.meta.filename, ...options],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {
        ...process.env,
        ...(values['in-process'] ? {} : { WEFT_BIN: resolve(values.bin), ...agentFor(resolve(values.bin)) }),
      },
      timeout: GROUP_SECONDS * 1000,
      killSignal: 'SIGKILL',
    },
  );
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  return new Promise((done, fail) => child.on('error', fail).on('close', () => done(text)));
}
