import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { executable, type PluginName } from './executables.ts';
import { variables, type Attachment, type ProcessOutcome } from './plugin.ts';
import type { Suite } from './suite.ts';
import { sample } from './thorough.ts';

/**
 * Runs a plugin again and again and lets it be killed, or a system call fail, at each of its steps in turn. The steps are not written
 * down: they are read from the strace(1) output of an undisturbed run, so that a new step is covered from the start.
 */

/** System calls that change or read the host; what Node does for itself (memory, clocks, threads) is left alone. */
const TRACED = 'sendto,write,openat,setns,socket,bind,flock,link,unlink,rename,mkdir,rmdir,fsync';

export interface Traced extends ProcessOutcome {
  readonly signal: string | null;
  readonly lines: readonly string[];
}

/**
 * Runs a plugin under strace(1).
 * @param inject as strace takes it: what to do to which system call, e.g. `sendto:error=ENOBUFS:when=3`
 */
export function trace(
  plugin: PluginName,
  command: string,
  attachment: Attachment,
  config: object,
  inject?: string,
  searchPath = '/usr/sbin:/usr/bin:/sbin:/bin',
): Traced {
  writeFileSync('/run/config.json', JSON.stringify(config));
  // Without -f: only the plugin's main thread is disturbed, not the programs that it starts, nor Node's other threads.
  const args = ['-o', '/run/trace', '-e', `trace=${TRACED}`, ...(inject ? ['-e', `inject=${inject}`] : [])];
  const outcome = spawnSync(
    'sh',
    [
      '-c',
      `exec strace ${args.join(' ')} ${executable(plugin)} < /run/config.json > /run/stdout 2> /run/stderr`,
    ],
    {
      env: { PATH: searchPath, ...variables(attachment), CNI_COMMAND: command },
      // Files and not pipes: the plugin outlives a strace that is killed, and spawnSync would wait for a pipe.
      stdio: 'ignore',
      timeout: 60_000,
      // strace that waits for a thread which cannot end ignores SIGTERM.
      killSignal: 'SIGKILL',
    },
  );
  timedOut = outcome.signal === 'SIGKILL' && outcome.error !== undefined;
  if (timedOut) spawnSync('pkill', ['-KILL', '-f', executable(plugin)]);
  const [stdout = '', stderr = '', lines = ''] = ['stdout', 'stderr', 'trace'].map((file) =>
    readFileSync(`/run/${file}`, 'utf8'),
  );
  return { exitCode: outcome.status, signal: outcome.signal, stdout, stderr, lines: lines.split('\n') };
}

/** The last run. */
let timedOut = false;

/** One situation of a plugin whose steps are disturbed. */
export interface Scenario {
  readonly plugin: PluginName;
  readonly command: 'ADD' | 'DEL';
  readonly attachment: Attachment;
  readonly config: object;
  /** PATH of the plugin. */
  readonly searchPath?: string;
  /** Makes what the command needs, on a clean host: the namespace, for DEL an earlier ADD. */
  readonly prepare: () => void;
  /** Removes everything that `prepare` and the plugin made. */
  readonly clean: () => void;
}

/** Which steps are disturbed: those that change something (for kills), or all (for errors). */
export type StepFilter = (step: Step) => boolean;

export const changing: StepFilter = ({ changes }) => changes;
export const every: StepFilter = () => true;

/** Kills the plugin with SIGKILL at this step: before the system call is executed. */
export const killAt = ({ syscall, when }: Step): string => `${syscall}:signal=SIGKILL:when=${when}`;
/** Lets this step fail with an error that it can meet on a real host. */
export const failAt = ({ syscall, when }: Step): string =>
  `${syscall}:error=${ERRORS[syscall] ?? 'ENOMEM'}:when=${when}`;

const ERRORS: Readonly<Record<string, string>> = {
  openat: 'EROFS',
  write: 'ENOSPC',
  link: 'ENOSPC',
  mkdir: 'ENOSPC',
};

/**
 * Calls `work` for a sample of the steps of the scenario's command (all of them in a thorough run), each time after `prepare` on a clean host. All
 * failures are collected, so that one run reports every step at which something is wrong.
 * @param work runs the command again with `inject` and checks what is left
 */
export function everyStep(
  scenario: Scenario,
  isMeant: StepFilter,
  work: (step: Step, at: number, disturbed: (inject: string) => Traced) => void,
): void {
  const { plugin, command, attachment, config, searchPath } = scenario;
  const disturbed = (inject: string): Traced =>
    trace(plugin, command, attachment, config, inject, searchPath);
  const failures: string[] = [];
  for (const [at, step] of sample(undisturbed(scenario).filter(isMeant)).entries()) {
    let failure = failureOf(scenario, () => work(step, at, disturbed));
    for (let attempt = 1; failure !== '' && wasMiscounted() && attempt < ATTEMPTS; attempt++) {
      failure = failureOf(scenario, () => work(step, at, disturbed));
    }
    if (failure !== '') failures.push(`${step.syscall} ${step.when} of ${command}: ${step.text}\n${failure}`);
  }
  assert.is(failures.length, 0, failures.join('\n\n'));
}

const ATTEMPTS = 50;

/** The steps of one undisturbed run. */
function undisturbed(scenario: Scenario, attempt = 1): Step[] {
  const { plugin, command, attachment, config, searchPath, prepare, clean } = scenario;
  prepare();
  const traced = trace(plugin, command, attachment, config, undefined, searchPath);
  const again = wasMiscounted() && attempt < ATTEMPTS;
  clean();
  if (again) return undisturbed(scenario, attempt + 1);
  assert.is(traced.exitCode, 0, traced.stdout);
  const found = stepsOf(traced);
  assert.ok(found.length > 3, `only ${found.length} steps seen: is strace installed?`);
  return found;
}

function failureOf({ prepare, clean }: Scenario, work: () => void): string {
  prepare();
  try {
    work();
    return '';
  } catch (thrown) {
    const { message, details } = thrown as { message: string; details?: string };
    return `${message}\n${details ?? ''}`;
  } finally {
    clean();
  }
}

/**
 * Whether a call of the last run was made twice: the kernel restarts a write to a sysctl that meets another change of a link, anywhere on
 * the machine. strace counts both, so the injection hit the wrong call, perhaps one of Node's own, which may then wait without end for its
 * other threads. A plugin that hangs each time exceeds the limit of the test.
 */
function wasMiscounted(): boolean {
  return timedOut || readFileSync('/run/trace', 'utf8').includes('ERESTART');
}

/**
 * ADD and DEL, disturbed before each system call that changes something: by a kill and by a failure in turn.
 * @param remove runs DEL and asserts that nothing is left
 */
export function disturbedThenDeleted(
  test: Suite,
  scenario: (command: 'ADD' | 'DEL') => Scenario,
  remove: () => void,
): void {
  for (const [command, del] of [
    ['ADD', 'DEL alone'],
    ['DEL', 'DEL again'],
  ] as const) {
    test(`${command} killed, or a system call of it fails, at any step: ${del} leaves nothing`, () => {
      everyStep(scenario(command), changing, (step, at, disturbed) => {
        disturbed(at % 2 === 0 ? killAt(step) : failAt(step));
        remove();
      });
    });
  }
}

/** A step of the plugin: the n-th call (from 1) of one system call, as strace counts them for `when=`. */
export interface Step {
  readonly syscall: string;
  readonly when: number;
  /** The call itself, shortened, for a human. */
  readonly text: string;
  /** Whether it changes anything; a kill before a call that only reads is a kill after the step before it. */
  readonly changes: boolean;
}

/**
 * The steps of an undisturbed run: every traced call from the first netlink socket, or the first change, on; not those that read files
 * of the system which are the same with and without the step.
 */
function stepsOf({ lines }: Traced): Step[] {
  const counts = new Map<string, number>();
  const steps: Step[] = [];
  let begun = false;
  for (const line of lines) {
    const syscall = /^([a-z0-9_]+)\(/.exec(line)?.[1];
    if (syscall === undefined) continue;
    const when = (counts.get(syscall) ?? 0) + 1;
    counts.set(syscall, when);
    if (line.includes('AF_NETLINK') || (concerns(syscall, line) && changes(syscall, line))) begun = true;
    if (begun && concerns(syscall, line))
      steps.push({ syscall, when, text: line.slice(0, 150), changes: changes(syscall, line) });
  }
  return steps;
}

function concerns(syscall: string, line: string): boolean {
  // Of Node itself: waking up its helper threads, reading libraries.
  if (syscall === 'write' && /^write\(\d+, ("\*", 1|".*", (8|16))\)/.test(line)) return false;
  if (syscall === 'openat' && !/"\/(proc\/sys|run|sys\/class)\//.test(line)) return false;
  // Not the result on stdout: everything is done then.
  return !/^write\(1, /.test(line);
}

function changes(syscall: string, line: string): boolean {
  if (syscall === 'sendto') return !/nlmsg_type=(RTM_GET|0x(12|16|1a) )/.test(line);
  if (syscall === 'openat') return /O_CREAT/.test(line);
  // iptables-legacy-restore gets its input by a write, and changes nothing before it.
  return ['write', 'link', 'unlink', 'rename', 'mkdir', 'rmdir', 'setns'].includes(syscall);
}
