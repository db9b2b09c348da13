import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { binDir } from '../../../support/executables.ts';
import { variables, type Attachment, type ProcessOutcome } from '../../../support/plugin.ts';

/** System calls that touch the world; what the runtime does for itself (memory, clocks, threads) is left alone. */
const TOUCHING = 'sendto,write,openat,setns,socket,bind,flock,link,unlink,rename,mkdir,fsync';

export interface Traced extends ProcessOutcome {
  readonly signal: string | null;
  readonly lines: readonly string[];
}

/**
 * Runs the bridge plugin under strace(1).
 * @param inject strace's own words: what to do to which system call, e.g. `sendto:error=ENOBUFS:when=3`
 */
export function trace(command: string, attachment: Attachment, config: object, inject?: string): Traced {
  writeFileSync('/run/config.json', JSON.stringify(config));
  // -f not: only the plugin's own thread is to be disturbed, not iptables; node's helper threads touch nothing.
  const args = [
    '-o',
    '/run/trace',
    '-e',
    `trace=${TOUCHING}`,
    ...(inject === undefined ? [] : ['-e', `inject=${inject}`]),
  ];
  const outcome = spawnSync(
    'sh',
    ['-c', `exec strace ${args.join(' ')} ${binDir}/bridge < /run/config.json > /run/stdout 2> /run/stderr`],
    {
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...variables(attachment), CNI_COMMAND: command },
      // Files and not pipes: the plugin outlives a strace that is killed, and a pipe would be waited for.
      stdio: 'ignore',
      timeout: 60_000,
    },
  );
  const [stdout = '', stderr = '', lines = ''] = ['stdout', 'stderr', 'trace'].map((file) =>
    readFileSync(`/run/${file}`, 'utf8'),
  );
  return { exitCode: outcome.status, signal: outcome.signal, stdout, stderr, lines: lines.split('\n') };
}

/**
 * Whether a call of the last run was made twice: the kernel does that to a sysctl that meets somebody else's change of a link,
 * anywhere on the machine. strace counts both, so whatever was to happen later happened at the wrong call, perhaps one of node's own.
 */
export function wasMiscounted(): boolean {
  return readFileSync('/run/trace', 'utf8').includes('ERESTART');
}

/** A step of the plugin: the n-th call (from 1) of one system call, as strace counts them for `when=`. */
export interface Step {
  readonly syscall: string;
  readonly when: number;
  /** The call itself, shortened, for a human. */
  readonly text: string;
  /** Whether the world is another one afterwards; being killed before a mere look is being killed after the step before. */
  readonly changes: boolean;
}

/**
 * The steps of an undisturbed run that touch the world: everything after the configuration was read, but for reading
 * files of the system that are the same with and without the step.
 */
export function stepsOf({ lines }: Traced): Step[] {
  const counts = new Map<string, number>();
  const steps: Step[] = [];
  let begun = false;
  for (const line of lines) {
    const syscall = /^([a-z0-9_]+)\(/.exec(line)?.[1];
    if (syscall === undefined) continue;
    const when = (counts.get(syscall) ?? 0) + 1;
    counts.set(syscall, when);
    if (line.includes('AF_NETLINK')) begun = true;
    if (begun && concerns(syscall, line))
      steps.push({ syscall, when, text: line.slice(0, 150), changes: changes(syscall, line) });
  }
  return steps;
}

function concerns(syscall: string, line: string): boolean {
  // Node's own: waking up its helper threads, reading libraries.
  if (syscall === 'write' && /^write\(\d+, ("\*", 1|".*", (8|16))\)/.test(line)) return false;
  if (syscall === 'openat' && !/"\/(proc\/sys|run|sys\/class)\//.test(line)) return false;
  // The answer itself: the runtime has hung up, or the plugin was killed when all was done.
  return !/^write\(1, /.test(line);
}

function changes(syscall: string, line: string): boolean {
  if (syscall === 'sendto') return !/nlmsg_type=(RTM_GET|0x(12|16|1a) )/.test(line);
  if (syscall === 'openat') return /O_CREAT/.test(line);
  return ['write', 'link', 'unlink', 'rename', 'mkdir', 'setns'].includes(syscall);
}
