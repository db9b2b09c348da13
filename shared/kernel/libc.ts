import { KernelError } from './errno.ts';
import { openFfi, type Ffi } from './ffi.ts';
import { systemCallNumbers, type SystemCall } from './system-calls.ts';

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
 * The result of a libc call as a number, or its errno as an error. Must be applied directly to the call: anything in
 * between may overwrite errno.
 * @param syscall the call's name as the operator should read it, with its object where that helps
 */
export function checked(syscall: string, result: number): number {
  if (result >= 0) return result;
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

/**
 * System calls under their C names. Buffers stand for pointers to data, which the kernel reads or fills in; sizes and flags are numbers.
 * Each gives what the kernel gives, -1 for a failure: wrap it in {@link checked}.
 */
export interface Libc {
  socket(domain: number, type: number, protocol: number): number;
  bind(fd: number, address: Uint8Array, length: number): number;
  connect(fd: number, address: Uint8Array, length: number): number;
  getsockname(fd: number, address: Uint8Array, length: Uint8Array): number;
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
  /** @param milliseconds -1 waits without end */
  poll(descriptors: Uint8Array, count: number, milliseconds: number): number;
  ioctl(fd: number, request: number): number;
  setns(fd: number, type: number): number;
  unshare(flags: number): number;
  mount(source: string, target: string, type: string, flags: number): number;
  umount2(target: string, flags: number): number;
  flock(fd: number, operation: number): number;
  getrandom(data: Uint8Array, length: number, flags: number): number;
  /** @param params struct io_uring_params, filled in. Gives the ring's descriptor, close-on-exec. */
  io_uring_setup(entries: number, params: Uint8Array): number;
  io_uring_register(ring: number, operation: number, argument: Uint8Array, count: number): number;
  _exit(status: number): void;
}

interface Loaded extends Ffi {
  readonly functions: Libc;
}

let loaded: Loaded | undefined;

function load(): Loaded {
  const numbers = systemCallNumbers(process.arch);
  const ffi = numbers === undefined ? undefined : openFfi();
  if (numbers === undefined || ffi === undefined) {
    throw new KernelError('node:ffi', 38, {
      detail: `Node ${process.version} on ${process.arch} lacks it; 26.1 or newer on x64 or arm64 is needed`,
    });
  }
  const word = (value: Argument): bigint => {
    if (typeof value === 'number') return BigInt(value);
    return value === null ? 0n : ffi.getRawPointer(value);
  };
  const call: Caller = (name, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0) =>
    ffi.syscall(numbers[name], word(a), word(b), word(c), word(d), word(e), word(f));
  return { ...ffi, functions: functionsOn(call) };
}

type Argument = number | Uint8Array | null;
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
    setsockopt: (...args) => call('setsockopt', ...args),
    getsockopt: (...args) => call('getsockopt', ...args),
    send: (...args) => call('sendto', ...args),
    sendto: (...args) => call('sendto', ...args),
    recv: (...args) => call('recvfrom', ...args),
    recvfrom: (...args) => call('recvfrom', ...args),
    // arm64 has no poll(2). No signal mask: its size is not looked at then.
    poll: (descriptors, count, milliseconds) => call('ppoll', descriptors, count, timespec(milliseconds)),
    ioctl: (...args) => call('ioctl', ...args),
    setns: (...args) => call('setns', ...args),
    unshare: (...args) => call('unshare', ...args),
    mount: (source, target, type, flags) =>
      call('mount', cString(source), cString(target), cString(type), flags),
    umount2: (target, flags) => call('umount2', cString(target), flags),
    flock: (...args) => call('flock', ...args),
    getrandom: (...args) => call('getrandom', ...args),
    io_uring_setup: (...args) => call('io_uring_setup', ...args),
    io_uring_register: (...args) => call('io_uring_register', ...args),
    _exit: (status) => void call('exit_group', status),
  };
}

/** struct timespec { i64 seconds, i64 nanoseconds }; null waits without end. */
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
