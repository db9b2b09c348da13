import { closeSync } from 'node:fs';
import { KernelError } from './errno.ts';
import { addressOf, bindFunction, checked, libc } from './libc.ts';

/** A program that runs, with our ends of its pipes: close-on-exec, to be closed by the caller. */
export interface Child {
  readonly pid: number;
  /** To write to. */
  readonly stdin: number;
  /** To read from. */
  readonly stdout: number;
  readonly stderr: number;
}

/** How a program ended: by itself, or by the signal of this number. */
export type ChildEnd = { readonly exitCode: number } | { readonly signal: number };

/**
 * Starts a program, in the namespaces and the working directory of the calling thread, with no signal ignored or blocked.
 *
 * By posix_spawn(3), whose child uses this process's memory until it executes the program. fork(2), which Node uses, first copies the page
 * tables: 4 ms for each program that the node agent starts.
 *
 * @param env `NAME=value`, complete
 * @throws KernelError of execve(2) when it cannot be started
 */
export function spawnProgram(file: string, args: readonly string[], env: readonly string[]): Child {
  const pipes: Pipe[] = [];
  try {
    const [stdin, stdout, stderr] = [openPipe(pipes), openPipe(pipes), openPipe(pipes)] as const;
    const pid = spawn(file, args, env, [stdin.readEnd, stdout.writeEnd, stderr.writeEnd]);
    for (const fd of [stdin.readEnd, stdout.writeEnd, stderr.writeEnd]) closeSync(fd);
    return { pid, stdin: stdin.writeEnd, stdout: stdout.readEnd, stderr: stderr.readEnd };
  } catch (thrown) {
    for (const { readEnd, writeEnd } of pipes) [readEnd, writeEnd].forEach((fd) => closeSync(fd));
    throw thrown;
  }
}

/** @returns undefined while the program runs. Ask no more after its end: the kernel forgets the process then, and its id may be another's. */
export function endOf(pid: number): ChildEnd | undefined {
  const status = Buffer.alloc(4);
  if (checked(`wait4(${pid})`, libc().wait4(pid, status, WNOHANG, null)) === 0) return undefined;
  // WIFEXITED, WEXITSTATUS and WTERMSIG of bits/waitstatus.h
  const [signal, exitCode] = [status.readUInt8(0) & 0x7f, status.readUInt8(1)] as const;
  return signal === 0 ? { exitCode } : { signal };
}

interface Pipe {
  readonly readEnd: number;
  readonly writeEnd: number;
}

function openPipe(opened: Pipe[]): Pipe {
  const pair = Buffer.alloc(8);
  checked('pipe2', libc().pipe2(pair, O_CLOEXEC));
  const pipe = { readEnd: pair.readInt32LE(0), writeEnd: pair.readInt32LE(4) };
  opened.push(pipe);
  return pipe;
}

/** @param standard descriptors that become 0, 1 and 2 */
function spawn(
  file: string,
  args: readonly string[],
  env: readonly string[],
  standard: readonly number[],
): number {
  functions ??= bind();
  const { posixSpawn, actionsInit, actionsDup2, actionsDestroy, attributes } = functions;
  const pid = Buffer.alloc(4);
  const actions = Buffer.alloc(ACTIONS_SIZE);
  returned('posix_spawn_file_actions_init', actionsInit(actions));
  try {
    standard.forEach((fd, to) => returned('posix_spawn_file_actions_adddup2', actionsDup2(actions, fd, to)));
    const path = Buffer.from(`${file}\0`);
    const error = posixSpawn(pid, path, actions, attributes, stringTable([file, ...args]), stringTable(env));
    returned(`execve(${file})`, error);
  } finally {
    actionsDestroy(actions);
  }
  return pid.readInt32LE(0);
}

/**
 * argv or envp of execve(2), in one buffer:
 *
 *    0           8                                     8 * (count + 1)
 *    +-----------+-----------+-----+----------------+-------------------+-----
 *    | pointer   | pointer   | ... | null pointer   | string, null byte | ...
 *    +-----------+-----------+-----+----------------+-------------------+-----
 */
function stringTable(strings: readonly string[]): Buffer {
  const bytes = strings.map((text) => Buffer.from(`${text}\0`));
  const table = Buffer.alloc(8 * (strings.length + 1));
  const whole = Buffer.concat([table, ...bytes]);
  let at = addressOf(whole) + BigInt(table.length);
  bytes.forEach((text, index) => {
    whole.writeBigUInt64LE(at, 8 * index);
    at += BigInt(text.length);
  });
  return whole;
}

/** posix_spawn and its helpers return the number of the error. */
function returned(call: string, errno: number): void {
  if (errno !== 0) throw new KernelError(call, errno);
}

let functions: ReturnType<typeof bind> | undefined;

/** The functions, and the posix_spawnattr_t that is the same for every program. */
function bind() {
  const attributes = Buffer.alloc(ATTRIBUTES_SIZE);
  returned('posix_spawnattr_init', bindFunction('posix_spawnattr_init', 1)(attributes));
  const flags = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK;
  returned('posix_spawnattr_setflags', bindFunction('posix_spawnattr_setflags', 2)(attributes, flags));
  // Node ignores SIGPIPE. The mask of blocked signals is empty after posix_spawnattr_init.
  const all = Buffer.alloc(SIGNAL_SET_SIZE, 0xff);
  returned(
    'posix_spawnattr_setsigdefault',
    bindFunction('posix_spawnattr_setsigdefault', 2)(attributes, all),
  );
  return {
    posixSpawn: bindFunction('posix_spawn', 6),
    actionsInit: bindFunction('posix_spawn_file_actions_init', 1),
    actionsDup2: bindFunction('posix_spawn_file_actions_adddup2', 3),
    actionsDestroy: bindFunction('posix_spawn_file_actions_destroy', 1),
    attributes,
  };
}

/** glibc's spawn.h and bits/types/__sigset_t.h, the same on x64 and arm64. */
const ACTIONS_SIZE = 80;
const ATTRIBUTES_SIZE = 336;
const SIGNAL_SET_SIZE = 128;
const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
/** asm-generic/fcntl.h, linux/wait.h */
const O_CLOEXEC = 0o2000000;
const WNOHANG = 1;
