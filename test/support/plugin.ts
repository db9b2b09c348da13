import { TIME_FACTOR } from './suite.ts';
import { spawn, spawnSync } from 'node:child_process';
import * as assert from 'uvu/assert';
import type { CniErrorJson } from '../../shared/cni/errors.ts';
import { binDir, executable, type PluginName } from './executables.ts';

export interface ProcessCall {
  /** CNI_COMMAND; none when left out. */
  readonly command?: string;
  /** Everything else in the environment, which has nothing but PATH besides. */
  readonly env?: Readonly<Record<string, string>>;
  /** The configuration, as text or to be written as JSON; /dev/null when left out. */
  readonly stdin?: string | object;
  readonly argv?: readonly string[];
  /**
   * A system call that the kernel refuses to the plugin, but not to programs that it starts: `getsockopt:error=ENOPROTOOPT` keeps it from
   * reading and writing tables of iptables-legacy by itself (strace(1), "Tampering").
   */
  readonly refused?: string;
  /** The directory of the executable, and CNI_PATH; {@link binDir} when left out. */
  readonly bin?: string;
  /** Milliseconds until the call is killed, where many run at once. */
  readonly patience?: number;
}

export interface ProcessOutcome {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** No call of a plugin may take longer unless the test says so; it is killed then, and `exitCode` is null. */
const PATIENCE_MS = 30_000 * TIME_FACTOR;

/** One run of a plugin's executable, as a runtime starts it: nothing of this process's environment is inherited. */
export function runPluginProcess(name: PluginName, call: ProcessCall): ProcessOutcome {
  const input = inputOf(call.stdin);
  const [file = '', ...args] = [...tampering(call), executable(name), ...(call.argv ?? [])];
  const { status, stdout, stderr, error } = spawnSync(file, args, {
    env: environment(call),
    encoding: 'utf8',
    timeout: call.patience ?? PATIENCE_MS,
    killSignal: 'SIGKILL',
    maxBuffer: 1 << 28,
    ...(input === undefined ? { stdio: ['ignore', 'pipe', 'pipe'] } : { input }),
  });
  // A plugin that refuses its environment never reads stdin: the broken pipe is no news.
  if (error !== undefined && (error as NodeJS.ErrnoException).code !== 'EPIPE') throw error;
  return { exitCode: status, stdout, stderr };
}

/** The same without waiting, for calls side by side. */
export function startPluginProcess(name: PluginName, call: ProcessCall): Promise<ProcessOutcome> {
  const { bin } = call;
  const child = spawn(bin === undefined ? executable(name) : `${bin}/${name}`, call.argv ?? [], {
    env: { ...environment(call), ...(bin === undefined ? {} : { CNI_PATH: bin }) },
    timeout: call.patience ?? PATIENCE_MS,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
  child.stdin.on('error', () => undefined).end(inputOf(call.stdin) ?? '');
  return new Promise((resolve, reject) => {
    child.on('error', reject).on('close', (exitCode) => resolve({ exitCode, stdout, stderr }));
  });
}

/** Which container a call is about. */
export interface Attachment {
  readonly id: string;
  readonly netns?: string;
  readonly ifname?: string;
  readonly args?: string;
  /** CNI_PATH; the folder of the executables under test when left out. */
  readonly path?: string;
}

/** The variables that runtimes set for an attachment. */
export function variables({
  id,
  netns = '',
  ifname = 'eth0',
  args = '',
  path = binDir,
}: Attachment): Record<string, string> {
  return { CNI_CONTAINERID: id, CNI_NETNS: netns, CNI_IFNAME: ifname, CNI_ARGS: args, CNI_PATH: path };
}

/** A call that must succeed: exit 0, stderr empty. Gives the result of an ADD, undefined for verbs that tell nothing. */
export function succeed(name: PluginName, command: string, attachment: Attachment, config: object): unknown {
  const outcome = runPluginProcess(name, { command, env: variables(attachment), stdin: config });
  assert.equal(
    [outcome.exitCode, outcome.stderr],
    [0, ''],
    `${name} ${command}: ${outcome.stdout}${outcome.stderr}`,
  );
  return outcome.stdout === '' ? undefined : JSON.parse(outcome.stdout);
}

/** A call that must fail: exit 1 and one error document on stdout, which is given back. */
export function fail(
  name: PluginName,
  command: string,
  attachment: Attachment,
  config: object,
): CniErrorJson {
  return errorOf(
    runPluginProcess(name, { command, env: variables(attachment), stdin: config }),
    `${name} ${command}`,
  );
}

/** The error document of an outcome; fails the test when it is anything but one. */
export function errorOf(outcome: ProcessOutcome, what = ''): CniErrorJson {
  assert.is(outcome.exitCode, 1, `${what}: ${outcome.stdout}${outcome.stderr}`);
  const document = JSON.parse(outcome.stdout) as CniErrorJson;
  assert.type(document.code, 'number');
  assert.type(document.msg, 'string');
  return document;
}

function tampering({ refused }: ProcessCall): string[] {
  return refused === undefined
    ? []
    : ['/usr/bin/strace', '-qq', '-o', '/dev/null', '-e', `inject=${refused}`];
}

/** All variables of a call. */
export function environment({ command, env }: ProcessCall): Record<string, string> {
  const path = '/usr/sbin:/usr/bin:/sbin:/bin';
  return { PATH: path, ...env, ...(command === undefined ? {} : { CNI_COMMAND: command }) };
}

export function inputOf(stdin: string | object | undefined): string | undefined {
  return typeof stdin === 'object' ? JSON.stringify(stdin) : stdin;
}
