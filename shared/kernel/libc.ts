import type * as Ffi from 'node:ffi';
import { KernelError } from './errno.ts';

export { KernelError, isErrno } from './errno.ts';

/**
 * The C library of the running process through node:ffi; loaded at the first call and kept.
 * node:ffi must not be touched while the startup snapshot is built, hence no import: only this function loads it.
 * Results are raw; wrap each call in {@link checked}.
 * @throws KernelError ENOSYS when this Node has no node:ffi
 */
export function libc(): Libc {
  loaded ??= load();
  return loaded.functions;
}

/**
 * The result of a libc call as a number, or its errno as an error. Must be applied directly to the call: anything in
 * between may overwrite errno.
 * @param syscall the call's name as the operator should read it, with its object where that helps
 */
export function checked(syscall: string, result: number | bigint): number {
  if (result >= 0) return Number(result);
  throw new KernelError(syscall, lastErrno());
}

/** errno of the libc call just made (only meaningful directly after one that failed). */
export function lastErrno(): number {
  loaded ??= load();
  return loaded.getInt32(loaded.errnoAt);
}

/** Where a buffer lies, for structs that hold pointers; valid while the buffer is referenced from elsewhere too. */
export function addressOf(buffer: Buffer): bigint {
  loaded ??= load();
  return loaded.getRawPointer(buffer);
}

/**
 * Ends the process at once: by `_exit`, which spares the teardown of Node (1 to 3 ms), or by Node's own immediate exit where libc has not
 * been needed so far, since loading it would take longer.
 */
export function exitNow(status: number): never {
  if (loaded === undefined) {
    (process as unknown as { reallyExit(status: number): void }).reallyExit(status);
  } else {
    loaded.functions._exit(status);
  }
  throw new Error('unreachable: the process has ended');
}

/** size_t and ssize_t are bigint in node:ffi; pointers to data are buffers, `null` is NULL. */
const SIGNATURES = {
  socket: { arguments: ['int32', 'int32', 'int32'], return: 'int32' },
  bind: { arguments: ['int32', 'buffer', 'uint32'], return: 'int32' },
  connect: { arguments: ['int32', 'buffer', 'uint32'], return: 'int32' },
  getsockname: { arguments: ['int32', 'buffer', 'buffer'], return: 'int32' },
  setsockopt: { arguments: ['int32', 'int32', 'int32', 'buffer', 'uint32'], return: 'int32' },
  getsockopt: { arguments: ['int32', 'int32', 'int32', 'buffer', 'buffer'], return: 'int32' },
  send: { arguments: ['int32', 'buffer', 'uint64', 'int32'], return: 'int64' },
  sendto: { arguments: ['int32', 'buffer', 'uint64', 'int32', 'buffer', 'uint32'], return: 'int64' },
  recv: { arguments: ['int32', 'buffer', 'uint64', 'int32'], return: 'int64' },
  recvfrom: { arguments: ['int32', 'buffer', 'uint64', 'int32', 'buffer', 'buffer'], return: 'int64' },
  socketpair: { arguments: ['int32', 'int32', 'int32', 'buffer'], return: 'int32' },
  sendmsg: { arguments: ['int32', 'buffer', 'int32'], return: 'int64' },
  poll: { arguments: ['buffer', 'uint64', 'int32'], return: 'int32' },
  ioctl: { arguments: ['int32', 'uint64', 'pointer'], return: 'int32' },
  setns: { arguments: ['int32', 'int32'], return: 'int32' },
  unshare: { arguments: ['int32'], return: 'int32' },
  mount: { arguments: ['string', 'string', 'string', 'uint64', 'pointer'], return: 'int32' },
  umount2: { arguments: ['string', 'int32'], return: 'int32' },
  flock: { arguments: ['int32', 'int32'], return: 'int32' },
  getrandom: { arguments: ['buffer', 'uint64', 'uint32'], return: 'int64' },
  alarm: { arguments: ['uint32'], return: 'uint32' },
  __errno_location: { arguments: [], return: 'pointer' },
  _exit: { arguments: ['int32'], return: 'void' },
} as const;

export type Libc = Ffi.WrappedFunctionsFromDefinitions<typeof SIGNATURES>;

interface Loaded {
  readonly functions: Libc;
  readonly getInt32: (pointer: bigint) => number;
  readonly getRawPointer: (buffer: Buffer) => bigint;
  /** errno of the main thread; fetched once, because fetching it after a failure would reset it. */
  readonly errnoAt: bigint;
}

let loaded: Loaded | undefined;

function load(): Loaded {
  const ffi = withoutExperimentalWarning(() => process.getBuiltinModule('node:ffi'));
  if (ffi === undefined) {
    throw new KernelError('node:ffi', 38, {
      detail: `Node ${process.version} lacks it; 26.1 or newer is needed`,
    });
  }
  const functions = onDemand(ffi.dlopen(null).lib);
  return {
    functions,
    getInt32: ffi.getInt32,
    getRawPointer: ffi.getRawPointer,
    errnoAt: functions.__errno_location(),
  };
}

/**
 * Each function is bound when it is first used: node:ffi makes machine code for it and searches a place for that page by page, which
 * takes 0.1 to 0.2 ms a function, and no call needs all of them.
 */
function onDemand(library: Ffi.DynamicLibrary): Libc {
  const functions = {};
  for (const [name, signature] of Object.entries(SIGNATURES)) {
    const bind = (): unknown => {
      const value = library.getFunction(name, signature);
      Object.defineProperty(functions, name, { value });
      return value;
    };
    Object.defineProperty(functions, name, { configurable: true, enumerable: true, get: bind });
  }
  return functions as Libc;
}

/** A plugin's stderr stays empty on success; only this one kind of warning, and only during `load`, is dropped. */
function withoutExperimentalWarning<T>(work: () => T): T {
  const emitWarning = process.emitWarning;
  process.emitWarning = ((warning: string | Error, ...rest: unknown[]) => {
    const type: unknown =
      typeof rest[0] === 'object' && rest[0] !== null ? Reflect.get(rest[0], 'type') : rest[0];
    if (type !== 'ExperimentalWarning') Reflect.apply(emitWarning, process, [warning, ...rest]);
  }) as typeof process.emitWarning;
  try {
    return work();
  } finally {
    process.emitWarning = emitWarning;
  }
}
