import { KernelError } from './errno.ts';

export { KernelError, isErrno } from './errno.ts';

/**
 * The kernel's system calls; loaded at the first call and kept.
 * Results are raw; wrap each call in {@link checked}.
 * @throws KernelError ENOSYS when this Node has no node:ffi
 */
export function libc(): Libc {
  loaded ??= load();
  return loaded.functions;
}

/**
 * The result of a libc call, or its errno as an error. Apply it directly to the call: anything in between may overwrite errno.
 * @param syscall the call's name for the error, with its object where that helps
 * @param capability that the call needs, for the error EPERM
 */
export function checked(syscall: string, result: number, capability?: string): number {
  if (result >= 0) return result;
  throw new KernelError(syscall, lastErrno(), capability === undefined ? {} : { capability });
}

/** As {@link checked}; undefined when there is nothing to do yet, which is frequent: an error would cost more than the call. */
export function checkedUnlessWaiting(syscall: string, result: number): number | undefined {
  if (result >= 0) return result;
  const errno = lastErrno();
  if ([EINTR, EAGAIN, ECONNABORTED].includes(errno)) return undefined;
  throw new KernelError(syscall, errno);
}

/** asm-generic/errno.h */
const EINTR = 4;
const EAGAIN = 11;
const ECONNABORTED = 103;

/** errno of the libc call just made (only meaningful directly after one that failed). */
export function lastErrno(): number {
  loaded ??= load();
  return loaded.getInt32(loaded.errnoAt);
}

/** The address of a buffer, for structs that hold pointers; valid until the next call has returned. */
export function addressOf(buffer: Buffer): bigint {
  loaded ??= load();
  inUse.push(buffer);
  return loaded.getRawPointer(buffer);
}

/** What the kernel may read or write during the call: without a reference, a buffer may be collected when its address has been taken. */
const inUse: unknown[] = [];

/**
 * Ends the process at once: by `_exit`, which skips Node's teardown (1 to 3 ms), or by Node's own immediate exit if libc is not loaded yet,
 * because loading it takes longer.
 */
export function exitNow(status: number): never {
  if (loaded === undefined) {
    (process as unknown as { reallyExit(status: number): void }).reallyExit(status);
  } else {
    loaded.functions._exit(status);
  }
  throw new Error('unreachable: the process has ended');
}

/**
 * System calls under their C names. Buffers are pointers to data that the kernel reads or fills in; sizes and flags are numbers.
 * Each returns what the kernel returns, -1 for a failure: wrap it in {@link checked}.
 */
export interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Uint8Array, length: number): number;
  connect(fd: number, address: Uint8Array, length: number): number;
  getsockname(fd: number, address: Uint8Array, length: Uint8Array): number;
  listen(fd: number, backlog: number): number;
  accept4(fd: number, address: null, addressLength: null, flags: number): number;
  /** @param message struct msghdr, filled in */
  recvmsg(fd: number, message: Uint8Array, flags: number): number;
  setsockopt(fd: number, level: number, name: number, value: Uint8Array, length: number): number;
  getsockopt(fd: number, level: number, name: number, value: Uint8Array, length: Uint8Array): number;
  send(fd: number, data: Uint8Array, length: number, flags: number): number;
  sendto(
    fd: number,
    data: Uint8Array,
    length: number,
    flags: number,
    address: Uint8Array,
    addressLength: number,
  ): number;
  recv(fd: number, data: Uint8Array, length: number, flags: number): number;
  recvfrom(
    fd: number,
    data: Uint8Array,
    length: number,
    flags: number,
    address: Uint8Array,
    addressLength: Uint8Array,
  ): number;
  /** @param milliseconds -1 waits without limit */
  poll(descriptors: Uint8Array, count: number, milliseconds: number): number;
  ioctl(fd: number, request: number): number;
  setns(fd: number, type: number): number;
  unshare(flags: number): number;
  mount(source: string, target: string, type: string, flags: number): number;
  umount2(target: string, flags: number): number;
  flock(fd: number, operation: number): number;
  getrandom(data: Uint8Array, length: number, flags: number): number;
  /** @param pair two i32: the end to read from, the end to write to */
  pipe2(pair: Uint8Array, flags: number): number;
  /** @param status i32, filled in */
  wait4(pid: number, status: Uint8Array, options: number, usage: null): number;
  _exit(status: number): void;
}

/** What a C function takes: a number, a pointer to a buffer's bytes, or the null pointer. */
export type Argument = number | Uint8Array | null;

/**
 * A function of the C library that is more than a system call, and returns an int. Binding it takes 0.1 to 0.2 ms: keep it.
 * @param parameters their number
 */
export function bindFunction(name: string, parameters: number): (...args: readonly Argument[]) => number {
  loaded ??= load();
  const { bind, word } = loaded;
  const bound = bind(name, parameters);
  return (...args) => whileInUse(args, () => bound(...args.map(word)));
}

interface Loaded extends Ffi {
  readonly functions: Libc;
  word(value: Argument): bigint;
}

let loaded: Loaded | undefined;

function load(): Loaded {
  const numbers = systemCallNumbers(process.arch);
  const ffi = numbers === undefined ? undefined : openFfi();
  if (numbers === undefined || ffi === undefined) {
    throw new KernelError('node:ffi', 38, {
      detail: `Node ${process.version} on ${process.arch} has no node:ffi; Node 26.1 or newer on x64 or arm64 is required`,
    });
  }
  const word = (value: Argument): bigint => {
    if (typeof value === 'number') return BigInt(value);
    return value === null ? 0n : ffi.getRawPointer(value);
  };
  const call: Caller = (name, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0) =>
    whileInUse([a, b, c, d, e, f], () =>
      ffi.syscall(numbers[name], word(a), word(b), word(c), word(d), word(e), word(f)),
    );
  return { ...ffi, functions: functionsOn(call), word };
}

/** Changes nothing of errno. */
function whileInUse(args: readonly Argument[], call: () => number): number {
  inUse.push(args);
  const result = call();
  inUse.length = 0;
  return result;
}

type Caller = (
  name: SystemCall,
  a?: Argument,
  b?: Argument,
  c?: Argument,
  d?: Argument,
  e?: Argument,
  f?: Argument,
) => number;

function functionsOn(call: Caller): Libc {
  return {
    socket: (...args) => call('socket', ...args),
    bind: (...args) => call('bind', ...args),
    connect: (...args) => call('connect', ...args),
    getsockname: (...args) => call('getsockname', ...args),
    listen: (...args) => call('listen', ...args),
    accept4: (...args) => call('accept4', ...args),
    recvmsg: (...args) => call('recvmsg', ...args),
    setsockopt: (...args) => call('setsockopt', ...args),
    getsockopt: (...args) => call('getsockopt', ...args),
    send: (...args) => call('sendto', ...args),
    sendto: (...args) => call('sendto', ...args),
    recv: (...args) => call('recvfrom', ...args),
    recvfrom: (...args) => call('recvfrom', ...args),
    // arm64 has no poll(2). Without a signal mask, its size is ignored.
    poll: (descriptors, count, milliseconds) => call('ppoll', descriptors, count, timespec(milliseconds)),
    ioctl: (...args) => call('ioctl', ...args),
    setns: (...args) => call('setns', ...args),
    unshare: (...args) => call('unshare', ...args),
    mount: (source, target, type, flags) =>
      call('mount', cString(source), cString(target), cString(type), flags),
    umount2: (target, flags) => call('umount2', cString(target), flags),
    flock: (...args) => call('flock', ...args),
    getrandom: (...args) => call('getrandom', ...args),
    pipe2: (...args) => call('pipe2', ...args),
    wait4: (...args) => call('wait4', ...args),
    _exit: (status) => void call('exit_group', status),
  };
}

/** struct timespec { i64 seconds, i64 nanoseconds }; null waits without limit. */
function timespec(milliseconds: number): Buffer | null {
  if (milliseconds < 0) return null;
  const time = Buffer.alloc(16);
  time.writeBigInt64LE(BigInt(Math.floor(milliseconds / 1000)), 0);
  time.writeBigInt64LE(BigInt((milliseconds % 1000) * 1_000_000), 8);
  return time;
}

function cString(text: string): Buffer {
  return Buffer.from(`${text}\0`);
}

/** Access to the C library's syscall(2) and errno. Not usable while the startup snapshot is built. */
export interface Ffi {
  /** syscall(2): its number and up to six arguments. */
  syscall(number: number, ...words: readonly [bigint, bigint, bigint, bigint, bigint, bigint]): number;
  getInt32(pointer: bigint): number;
  getRawPointer(buffer: Uint8Array): bigint;
  /** A function of words that returns an int. */
  bind(name: string, parameters: number): (...words: readonly bigint[]) => number;
  /** errno of the main thread; fetched once, because fetching it after a failure would reset it. */
  readonly errnoAt: bigint;
}

const ERRNO_LOCATION = { arguments: [], return: 'pointer' } as const;
const SYSCALL = {
  arguments: ['int64', 'int64', 'int64', 'int64', 'int64', 'int64', 'int64'],
  return: 'int64',
} as const;

/**
 * Only syscall(2) is bound: node:ffi generates machine code for each bound function, which takes 0.1 to 0.2 ms, and a plugin call needs a
 * dozen system calls.
 * @returns undefined when this Node has no node:ffi
 */
export function openFfi(): Ffi | undefined {
  const ffi = withoutExperimentalWarning(() => process.getBuiltinModule('node:ffi'));
  if (ffi === undefined) return undefined;
  const library = ffi.dlopen(null).lib;
  const errnoAt = library.getFunction('__errno_location', ERRNO_LOCATION)();
  const call = library.getFunction('syscall', SYSCALL);
  const { getInt32, getRawPointer } = ffi;
  const syscall: Ffi['syscall'] = (number, ...words) => Number(call(BigInt(number), ...words));
  const bind: Ffi['bind'] = (name, parameters) =>
    library.getFunction(name, {
      arguments: Array.from({ length: parameters }, () => 'int64' as const),
      return: 'int32',
    });
  return { syscall, getInt32, getRawPointer, bind, errnoAt };
}

/** A plugin's stderr stays empty on success: drops warnings of this kind while `work` runs. */
function withoutExperimentalWarning<T>(work: () => T): T {
  const emitWarning = process.emitWarning;
  process.emitWarning = (warning: string | Error, ...rest: unknown[]) => {
    const type: unknown =
      typeof rest[0] === 'object' && rest[0] !== null ? Reflect.get(rest[0], 'type') : rest[0];
    if (type !== 'ExperimentalWarning') Reflect.apply(emitWarning, process, [warning, ...rest]);
  };
  try {
    return work();
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** Numbers of the system calls that the suite uses (asm/unistd_64.h, asm-generic/unistd.h); they differ between architectures. */
export type SystemCall = keyof typeof X64;

/** @param arch as in process.arch */
export function systemCallNumbers(arch: string): Readonly<Record<SystemCall, number>> | undefined {
  return { x64: X64, arm64: ARM64 }[arch];
}

const X64 = {
  ioctl: 16,
  socket: 41,
  connect: 42,
  sendto: 44,
  recvfrom: 45,
  recvmsg: 47,
  bind: 49,
  listen: 50,
  getsockname: 51,
  setsockopt: 54,
  getsockopt: 55,
  wait4: 61,
  flock: 73,
  mount: 165,
  umount2: 166,
  exit_group: 231,
  ppoll: 271,
  unshare: 272,
  accept4: 288,
  pipe2: 293,
  setns: 308,
  getrandom: 318,
};

const ARM64: typeof X64 = {
  ioctl: 29,
  flock: 32,
  umount2: 39,
  mount: 40,
  pipe2: 59,
  ppoll: 73,
  exit_group: 94,
  unshare: 97,
  socket: 198,
  bind: 200,
  listen: 201,
  connect: 203,
  getsockname: 204,
  sendto: 206,
  recvfrom: 207,
  setsockopt: 208,
  getsockopt: 209,
  recvmsg: 212,
  accept4: 242,
  wait4: 260,
  setns: 268,
  getrandom: 278,
};

/** Bytes from the kernel's generator (getrandom(2)); `node:crypto` would add twenty modules to the startup snapshot. */
export function randomBytes(count: number): Buffer {
  const bytes = Buffer.alloc(count);
  for (let done = 0; done < count;) {
    const rest = bytes.subarray(done);
    done += checked('getrandom', libc().getrandom(rest, rest.length, 0));
  }
  return bytes;
}
