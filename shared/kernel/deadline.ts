import { CniCode, CniError } from '../cni/errors.ts';

/**
 * Time limits. A plugin call has one deadline for everything it waits for: stdin, locks, the kernel's answers, other programs, stdout.
 * Nomad holds a lock over the whole client while a plugin runs, so a call that waits forever stops every allocation of the node.
 */

/** A point in time on the monotonic clock. */
export interface Deadline {
  /** Milliseconds since the wait began. */
  elapsedMs(): number;
  /** Milliseconds left, with fractions; negative after the deadline. */
  remainingMs(): number;
  passed(): boolean;
}

/** What one call may wait, in total. */
export const CALL_LIMIT_MS = 10_000;
/** What a call may wait in addition, to undo its steps and to report the error after its deadline has passed. */
const ROLLBACK_LIMIT_MS = 3_000;

/** What a call may take when it queues for a lock that other calls hand on, each within its own {@link CALL_LIMIT_MS}. */
const QUEUE_LIMIT_MS = 60_000;

/** The running call; undefined between calls (`weft`, tests), where each wait has its own limit. */
let call: CallLimits | undefined;

interface CallLimits {
  readonly start: number;
  readonly end: number;
  readonly rollbackEnd: number;
  readonly onQueued?: (() => void) | undefined;
}

/**
 * Runs one plugin call: no wait in `work` goes beyond `limitMs` from now. Several calls may follow each other in one process.
 * @param onQueued called when {@link restartInQueue} starts the time again
 */
export function withCallDeadline<T>(
  work: () => T,
  limitMs: number = CALL_LIMIT_MS,
  onQueued?: () => void,
): T {
  return during({ ...callOf(limitMs), onQueued }, work);
}

/** Runs the rollback of a failed call, or its report, which may wait {@link ROLLBACK_LIMIT_MS} beyond the call's deadline. */
export function withRollbackTime<T>(work: () => T): T {
  return call === undefined ? work() : during({ ...call, end: call.rollbackEnd }, work);
}

/** Starts the running call's time again: after input typed at a terminal. */
export function restartCallDeadline(limitMs: number = CALL_LIMIT_MS): void {
  if (call !== undefined) call = { ...call, ...callOf(limitMs) };
}

/**
 * Starts the running call's time again, up to {@link QUEUE_LIMIT_MS} after its start: a queue of calls moves on, so nothing blocks the node.
 * @returns the new deadline of the wait that began with `wait`
 */
export function restartInQueue(wait: Deadline): Deadline {
  if (call !== undefined) call = { ...call, ...callOf(CALL_LIMIT_MS, call.start) };
  call?.onQueued?.();
  return deadlineIn(Math.min(CALL_LIMIT_MS, QUEUE_LIMIT_MS - wait.elapsedMs()));
}

/**
 * The deadline of one wait: `milliseconds` from now, or the running call's deadline if that is earlier.
 * @param milliseconds default: all that the call has left
 */
export function deadlineIn(milliseconds: number = CALL_LIMIT_MS): Deadline {
  const start = now();
  const end = Math.min(start + milliseconds, call?.end ?? Infinity);
  const remainingMs = (): number => end - now();
  return { elapsedMs: () => now() - start, remainingMs, passed: () => remainingMs() <= 0 };
}

/**
 * The error for a wait that its deadline ended.
 * @param activity what took too long, on which object: `waiting for lock /run/xtables.lock`
 * @param options.code default 11, try again later
 * @param options.holder who is in the way, if known: `process 4711 (iptables-restore)`
 */
export function timeoutError(
  activity: string,
  wait: Deadline,
  options: { code?: number; holder?: string | undefined; details?: string; cause?: unknown } = {},
): CniError {
  const seconds = Math.round(wait.elapsedMs() / 100) / 10;
  const holder = options.holder === undefined ? '' : `, held by ${options.holder}`;
  return new CniError(
    options.code ?? CniCode.TryAgainLater,
    `timed out after ${seconds} s ${activity}${holder}`,
    {
      details: options.details ?? `a plugin call may take ${CALL_LIMIT_MS / 1000} s in total`,
      ...(options.cause !== undefined && { cause: options.cause }),
    },
  );
}

/** Blocks the thread; fractions of a millisecond count. */
export function sleep(milliseconds: number): void {
  if (milliseconds > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/**
 * Asks until the answer is true or the time is up, with pauses up to 20 ms in between, each twice as long as the one before.
 * @param firstPauseMs shorter for what takes only a moment
 * @returns whether it became true
 */
export function waitUntil(milliseconds: number, isTrue: () => boolean, firstPauseMs = 1): boolean {
  const deadline = deadlineIn(milliseconds);
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, 20)) {
    if (isTrue()) return true;
    if (deadline.passed()) return false;
    sleep(Math.min(pauseMs, Math.max(deadline.remainingMs(), 0)));
  }
}

function callOf(limitMs: number, start: number = now()): CallLimits {
  const end = Math.min(now() + limitMs, start + QUEUE_LIMIT_MS);
  return { start, end, rollbackEnd: end + ROLLBACK_LIMIT_MS };
}

function during<T>(limits: typeof call, work: () => T): T {
  const before = call;
  call = limits;
  try {
    return work();
  } finally {
    call = before;
  }
}

/** process.hrtime, because touching `performance` loads eleven more modules at start-up. */
function now(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}
