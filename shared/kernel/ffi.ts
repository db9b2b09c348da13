/**
 * The way to the C library's syscall(2) and errno. In the executable by the native half of node:ffi, which the build makes reachable: the other
 * half, JavaScript that checks and converts arguments, takes a millisecond to load and as long again in a process with a hundred calls.
 * Elsewhere by node:ffi itself. Neither may be touched while the startup snapshot is built.
 */
export interface Ffi {
  /** syscall(2): its number and the six words that the kernel takes at most. */
  syscall(number: number, ...words: readonly [bigint, bigint, bigint, bigint, bigint, bigint]): number;
  getInt32(pointer: bigint): number;
  getRawPointer(buffer: Uint8Array): bigint;
  /** errno of the main thread; fetched once, because fetching it after a failure would reset it. */
  readonly errnoAt: bigint;
}

/** @returns undefined when this Node has no node:ffi */
export function openFfi(): Ffi | undefined {
  const native = typeof internalBinding === 'function' ? fromNative(internalBinding('ffi')) : undefined;
  return native ?? fromModule();
}

/** What Node's own modules reach their native halves by: given to the bundle by build/compile-eagerly.cjs, undefined elsewhere. */
declare const internalBinding: ((name: 'ffi') => NativeFfi) | undefined;

/** src/node_ffi.cc of Node 26. */
interface NativeFfi {
  readonly DynamicLibrary: new (path: null) => {
    getFunction(name: string, signature: Signature): NativeFunction;
  };
  /** The property of a native function whose arguments and result are numbers: the buffer they go through, 8 bytes each. */
  readonly kSbSharedBuffer: symbol;
  getInt32(pointer: bigint): number;
  getRawPointer(buffer: Uint8Array): bigint;
}

interface Signature {
  readonly arguments: readonly string[];
  readonly return: string;
}
type NativeFunction = (() => bigint) & { readonly [property: symbol]: unknown };

const ERRNO_LOCATION = { arguments: [], return: 'pointer' } as const;
const SYSCALL = {
  arguments: ['int64', 'int64', 'int64', 'int64', 'int64', 'int64', 'int64'],
  return: 'int64',
} as const;
const WORDS = 8;

/** @returns undefined when it does not look as expected */
function fromNative(native: NativeFfi): Ffi | undefined {
  const { DynamicLibrary, kSbSharedBuffer, getInt32, getRawPointer } = native;
  const library = new DynamicLibrary(null);
  const call = library.getFunction('syscall', SYSCALL);
  const buffer = call[kSbSharedBuffer];
  if (!(buffer instanceof ArrayBuffer) || buffer.byteLength !== WORDS * 8) return undefined;
  // The result, the number, the arguments.
  const words = new BigInt64Array(buffer);
  const errnoAt = library.getFunction('__errno_location', ERRNO_LOCATION)();
  const syscall: Ffi['syscall'] = (number, ...given) => {
    words[1] = BigInt(number);
    for (let index = 0; index < given.length; index++) words[index + 2] = given[index] ?? 0n;
    call();
    return Number(words[0]);
  };
  return { syscall, getInt32, getRawPointer, errnoAt };
}

/**
 * One function is enough: node:ffi makes machine code for each that is bound, and searches a place for it page by page, 0.1 to 0.2 ms a
 * function, and a call of a plugin needs a dozen system calls.
 */
function fromModule(): Ffi | undefined {
  const ffi = withoutExperimentalWarning(() => process.getBuiltinModule('node:ffi'));
  if (ffi === undefined) return undefined;
  const library = ffi.dlopen(null).lib;
  const errnoAt = library.getFunction('__errno_location', ERRNO_LOCATION)();
  const call = library.getFunction('syscall', SYSCALL);
  const { getInt32, getRawPointer } = ffi;
  const syscall: Ffi['syscall'] = (number, ...words) => Number(call(BigInt(number), ...words));
  return { syscall, getInt32, getRawPointer, errnoAt };
}

/** A plugin's stderr stays empty on success; only this one kind of warning, and only during `work`, is dropped. */
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
