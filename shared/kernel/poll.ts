import { libc } from './libc.ts';

/** Events of asm-generic/poll.h. An error condition is reported whatever was asked for. */
export const PollEvent = { in: 0x1, out: 0x4, readHangUp: 0x2000 } as const;

/** What a pipe takes without blocking when it is ready for {@link PollEvent.out} (PIPE_BUF of linux/limits.h). */
export const PIPE_BUF = 4096;

export interface PollRequest {
  readonly fd: number;
  /** One or several of {@link PollEvent}. */
  readonly events: number;
}

/**
 * Waits until one of these descriptors has one of its events or an error condition, which the read or write then reports.
 *
 *    struct pollfd
 *    0           4             6              8
 *    +-----------+-------------+--------------+
 *    | fd i32    | events i16  | revents i16  |
 *    +-----------+-------------+--------------+
 *
 * @param milliseconds 0 and below: without waiting; Infinity: without limit
 * @returns of each descriptor whether it is ready; none after the time, and after a signal
 */
export function poll(requests: readonly PollRequest[], milliseconds: number): readonly boolean[] {
  const structs = Buffer.alloc(SIZE * requests.length);
  requests.forEach(({ fd, events }, at) => {
    structs.writeInt32LE(fd, SIZE * at);
    structs.writeInt16LE(events, SIZE * at + EVENTS);
  });
  const timeout = Number.isFinite(milliseconds) ? Math.max(0, Math.ceil(milliseconds)) : -1;
  const count = libc().poll(structs, requests.length, timeout);
  return requests.map((_, at) => count > 0 && structs.readInt16LE(SIZE * at + REVENTS) !== 0);
}

/** Waits until there is something to read or accept, or the other end is gone. @returns false after the time, and after a signal */
export function isReadable(fd: number, milliseconds: number): boolean {
  return isReady(fd, PollEvent.in, milliseconds);
}

/** As {@link isReadable} for `fd`, but also returns when there is something to read from `other`. */
export function isReadableBefore(fd: number, other: number, milliseconds: number): boolean {
  const [first = false] = poll(
    [fd, other].map((one) => ({ fd: one, events: PollEvent.in })),
    milliseconds,
  );
  return first;
}

/** Whether at least PIPE_BUF bytes can be written without blocking. */
export function isWritable(fd: number): boolean {
  return waitForRoom(fd, 0);
}

/** Waits until something can be written without blocking, or the other end is gone. @returns false after the time, and after a signal */
export function waitForRoom(fd: number, milliseconds: number): boolean {
  return isReady(fd, PollEvent.out, milliseconds);
}

/** Whether the other end has closed the connection or has ended. */
export function isHungUp(fd: number): boolean {
  return isReady(fd, PollEvent.readHangUp, 0);
}

function isReady(fd: number, events: number, milliseconds: number): boolean {
  return poll([{ fd, events }], milliseconds).includes(true);
}

const SIZE = 8;
const EVENTS = 4;
const REVENTS = 6;
