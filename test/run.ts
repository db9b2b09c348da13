/**
 * Runs the test files, each as a process of its own, several at a time. Files outside test/unit get a private host (support/own-host.sh).
 * usage: node test/run.ts [--agent] [--thorough] [part of a path ...]
 * --agent: through the launchers and a node agent. Without it, the files of WITH_AGENT run both ways, and those of MIXED with it, too.
 * --thorough: every step and all rounds, where a run usually takes a sample (support/thorough.ts).
 * Ends with `N passed, N failed` (`, N skipped` where something could not run here), exit code 1 if anything failed.
 */
import { existsSync, globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { relative, resolve } from 'node:path';
import { needsOwnHost, runFile, type FileReport } from './support/run-file.ts';

const root = resolve(import.meta.dirname, '..');
const wanted = process.argv.slice(2).filter((argument) => !argument.startsWith('--'));
const onlyWithAgent = process.argv.includes('--agent');
const thorough = process.argv.includes('--thorough');
if (thorough) process.env['WEFT_TEST_THOROUGH'] = '1';
/** What a runtime sees must be the same with the node agent. */
const WITH_AGENT = thorough
  ? ['test/conformance/', 'test/e2e/', 'test/host/plugins/bridge/add']
  : [
      'test/conformance/answers',
      'test/conformance/delegation',
      'test/conformance/interchange',
      'test/conformance/refusals',
      'test/conformance/surroundings',
      'test/e2e/burst-nft.',
      'test/e2e/nomad-lists-',
      'test/host/plugins/bridge/add',
    ];
/** They call no plugin, or count the programs that one starts. */
const WITHOUT_AGENT = ['test/e2e/browser', 'test/e2e/no-children'];
/** They start hundreds of plugins at once: beside them, calls of other tests would miss their limit of 10 s. */
const ALONE = ['test/host/agent/failures'];
/** They make calls both ways themselves (support/mixed-calls.ts). */
const MIXED = ['test/soak/', 'test/fuzz/executables.'];
const files = globSync('test/**/*.test.ts', { cwd: root })
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  .sort();

if (process.getuid?.() !== 0 && files.some((file) => needsOwnHost(`/${file}`))) {
  fatal(
    'tests outside test/unit create network namespaces; run them as root, or run only unit tests: npm run unit',
  );
}
const unmatched = wanted.filter((part) => !files.some((file) => file.includes(part)));
if (files.length === 0 || unmatched.length > 0) fatal(`no test file matches ${unmatched.join(', ')}`);

const reports: FileReport[] = [];
const runs = files.flatMap((file) => [
  ...(onlyWithAgent || (hasLaunchers() && isIn(MIXED, file)) ? [] : [{ file, withAgent: false }]),
  ...(!isIn(WITHOUT_AGENT, file) &&
  (onlyWithAgent || (hasLaunchers() && isIn([...WITH_AGENT, ...MIXED], file)))
    ? [{ file, withAgent: true }]
    : []),
]);
// One more than processors: many tests wait for a deadline, a program or a lock.
const workers = Number(process.env['WEFT_TEST_WORKERS'] ?? availableParallelism() + 1);
const together = runs.filter(({ file }) => !isIn(ALONE, file));
await Promise.all(Array.from({ length: workers }, () => worker(together)));
await worker(runs.filter(({ file }) => isIn(ALONE, file)));
slowest();
summarise();

async function worker(queue: typeof runs): Promise<void> {
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const report = await runFile(resolve(root, next.file), next.withAgent);
    reports.push(report);
    print(report);
  }
}

function print(report: FileReport): void {
  const mark = report.failures.length > 0 ? 'FAIL' : 'ok  ';
  const skipped = report.skipped.length > 0 ? `, ${report.skipped.length} skipped` : '';
  console.log(
    `${mark} ${titleOf(report)}  ${report.passed} passed${skipped}  ${(report.milliseconds / 1000).toFixed(1)} s`,
  );
  for (const { title, reason } of report.skipped) console.log(`     skipped: ${title}: ${reason}`);
  for (const { title, error } of report.failures) console.log(`     FAILED: ${title}\n${indent(error)}`);
  if (report.failures.some(({ title }) => title === '(file)'))
    console.log(indent(report.output.slice(-4000)));
}

function slowest(): void {
  const slow = reports.flatMap((report) => report.slow.map((one) => ({ ...one, file: titleOf(report) })));
  for (const { file, title, seconds } of slow.toSorted((a, b) => b.seconds - a.seconds).slice(0, 15)) {
    console.log(`slow ${seconds.toFixed(1).padStart(6)} s  ${file}: ${title}`);
  }
}

function summarise(): void {
  const sum = (count: (report: FileReport) => number): number =>
    reports.reduce((total, report) => total + count(report), 0);
  const passed = sum((report) => report.passed);
  const failed = sum((report) => report.failures.length);
  const skipped = sum((report) => report.skipped.length);
  for (const report of reports.filter(({ failures }) => failures.length > 0)) {
    for (const { title } of report.failures) console.log(`FAILED ${titleOf(report)}: ${title}`);
  }
  console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
}

function titleOf({ file, withAgent }: FileReport): string {
  return `${relative(root, file)}${withAgent ? ' (with the agent)' : ''}`;
}

function isIn(parts: readonly string[], file: string): boolean {
  return parts.some((part) => file.startsWith(part));
}

/** The build leaves them out where there is no C compiler, and says so. */
function hasLaunchers(): boolean {
  return existsSync(resolve(root, 'dist/agent/bridge'));
}

function indent(text: string): string {
  return text.replaceAll(/^/gm, '       ');
}

function fatal(message: string): never {
  console.error(message);
  process.exit(1);
}
