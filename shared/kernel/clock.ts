/** A point in time that no change of the wall clock moves. */
export interface Deadline {
  /** Milliseconds until it; negative once it has passed. */
  left(): number;
  passed(): boolean;
}

/** process.hrtime, because touching `performance` loads eleven more modules at start-up. */
export function deadlineIn(milliseconds: number): Deadline {
  const end = now() + milliseconds;
  const left = (): number => end - now();
  return { left, passed: () => left() <= 0 };
}

/** Blocks the thread; fractions of a millisecond count. */
export function sleep(milliseconds: number): void {
  if (milliseconds > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, milliseconds);
}

/**
 * Asks until the answer is true or the time is up, pausing in between: 1 ms first, growing to 20 ms.
 * @returns whether it became true
 */
export function waitUntil(milliseconds: number, isTrue: () => boolean): boolean {
  const deadline = deadlineIn(milliseconds);
  for (let pause = 1; ; pause = Math.min(pause * 2, 20)) {
    if (isTrue()) return true;
    if (deadline.passed()) return false;
    sleep(Math.min(pause, Math.max(deadline.left(), 0)));
  }
}

function now(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}
