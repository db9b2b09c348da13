/**
 * A system call, or one netlink message, that the kernel refused.
 * Decide by `code` (see {@link isErrno}), never by the text.
 */
export class KernelError extends Error {
  override readonly name = 'KernelError';
  /** What was requested, e.g. `setns` or `RTM_NEWLINK veth1234`. */
  readonly syscall: string;
  /** Positive errno as in errno.h. */
  readonly errno: number;
  /** Its name, e.g. `EEXIST`; `E<number>` when this table lacks it. */
  readonly code: string;
  /** The kernel's own explanation (netlink extended ack), when it gave one. */
  readonly detail: string | undefined;
  /** Byte offset of the offending attribute in the request (netlink extended ack). */
  readonly offset: number | undefined;
  /** The capability that the process lacks, e.g. `CAP_NET_ADMIN`; only with EPERM. */
  readonly capability: string | undefined;

  constructor(
    syscall: string,
    errno: number,
    options: { detail?: string; offset?: number; capability?: string; cause?: unknown } = {},
  ) {
    const [code, text] = describe(errno);
    const explained = options.detail === undefined ? '' : ` (${options.detail})`;
    const capability = code === 'EPERM' ? options.capability : undefined;
    const remedy = capability === undefined ? '' : `; missing ${capability}: run as root or grant it`;
    super(
      `${syscall}: ${code}: ${text}${explained}${remedy}`,
      options.cause === undefined ? undefined : { cause: options.cause },
    );
    this.syscall = syscall;
    this.errno = errno;
    this.code = code;
    this.detail = options.detail;
    this.offset = options.offset;
    this.capability = capability;
  }
}

/** Whether `thrown` is an error of the kernel (ours or one of node:fs) with one of these codes. */
export function isErrno(thrown: unknown, ...codes: readonly string[]): boolean {
  if (!(thrown instanceof Error) || !('code' in thrown)) return false;
  return typeof thrown.code === 'string' && codes.includes(thrown.code);
}

function describe(errno: number): readonly [code: string, text: string] {
  return NAMES[errno] ?? [`E${errno}`, 'unknown error'];
}

/**
 * asm-generic/errno-base.h and asm-generic/errno.h (x86, arm64): errors of sockets, namespaces, netlink, netfilter and execve.
 * util.getSystemErrorName covers only libuv's subset, and loads a module at start-up.
 */
const NAMES: Readonly<Record<number, readonly [string, string]>> = {
  1: ['EPERM', 'operation not permitted'],
  2: ['ENOENT', 'no such file or directory'],
  3: ['ESRCH', 'no such process or entry'],
  4: ['EINTR', 'interrupted system call'],
  5: ['EIO', 'input/output error'],
  6: ['ENXIO', 'no such device or address'],
  7: ['E2BIG', 'argument list too long'],
  8: ['ENOEXEC', 'not a program'],
  9: ['EBADF', 'bad file descriptor'],
  11: ['EAGAIN', 'resource temporarily unavailable'],
  12: ['ENOMEM', 'out of memory'],
  13: ['EACCES', 'permission denied'],
  14: ['EFAULT', 'bad address'],
  16: ['EBUSY', 'device or resource busy'],
  17: ['EEXIST', 'already exists'],
  18: ['EXDEV', 'invalid cross-device link'],
  19: ['ENODEV', 'no such device'],
  20: ['ENOTDIR', 'not a directory'],
  21: ['EISDIR', 'is a directory'],
  22: ['EINVAL', 'invalid argument'],
  23: ['ENFILE', 'too many open files in system'],
  24: ['EMFILE', 'too many open files'],
  25: ['ENOTTY', 'inappropriate ioctl for device'],
  26: ['ETXTBSY', 'text file busy'],
  27: ['EFBIG', 'file too large'],
  28: ['ENOSPC', 'no space left'],
  30: ['EROFS', 'read-only file system'],
  31: ['EMLINK', 'too many links'],
  32: ['EPIPE', 'broken pipe'],
  33: ['EDOM', 'argument out of domain'],
  34: ['ERANGE', 'numerical result out of range'],
  36: ['ENAMETOOLONG', 'name too long'],
  38: ['ENOSYS', 'function not implemented'],
  40: ['ELOOP', 'too many levels of links'],
  54: ['EXFULL', 'exchange full (a bridge has at most 1023 ports)'],
  61: ['ENODATA', 'no data available'],
  62: ['ETIME', 'timer expired'],
  71: ['EPROTO', 'protocol error'],
  74: ['EBADMSG', 'bad message'],
  75: ['EOVERFLOW', 'value too large'],
  85: ['ERESTART', 'interrupted by a concurrent change'],
  88: ['ENOTSOCK', 'not a socket'],
  90: ['EMSGSIZE', 'message too long'],
  92: ['ENOPROTOOPT', 'protocol option not available'],
  93: ['EPROTONOSUPPORT', 'protocol not supported'],
  94: ['ESOCKTNOSUPPORT', 'socket type not supported'],
  95: ['EOPNOTSUPP', 'operation not supported'],
  96: ['EPFNOSUPPORT', 'protocol family not supported'],
  97: ['EAFNOSUPPORT', 'address family not supported'],
  98: ['EADDRINUSE', 'address already in use'],
  99: ['EADDRNOTAVAIL', 'cannot assign requested address'],
  100: ['ENETDOWN', 'network is down'],
  101: ['ENETUNREACH', 'network is unreachable'],
  104: ['ECONNRESET', 'connection reset by peer'],
  105: ['ENOBUFS', 'no buffer space available'],
  107: ['ENOTCONN', 'not connected'],
  110: ['ETIMEDOUT', 'timed out'],
  111: ['ECONNREFUSED', 'connection refused'],
  113: ['EHOSTUNREACH', 'no route to host'],
  114: ['EALREADY', 'operation already in progress'],
  115: ['EINPROGRESS', 'operation now in progress'],
  132: ['ERFKILL', 'operation not possible due to RF-kill'],
};
