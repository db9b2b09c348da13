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

const SIZE = 8;
const EVENTS = 4;
const REVENTS = 6;
