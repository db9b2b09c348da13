import { readFileSync } from 'node:fs';
import { isErrno } from './errno.ts';

/** Flows by their protocol and destination port before any DNAT, or a run of such ports. */
export interface Flows {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly originalPort: number;
  readonly lastPort?: number;
}

/**
 * Those of `wanted` that the kernel may be tracking in the caller's network namespace; what is left out is certainly not.
 *
 * Listing over netlink, filtered or not, makes the kernel take a lock for each bucket of a table that all namespaces share: 9 to 20 ms with
 * 262,144 buckets, however few entries there are. The text under /proc is put together without locks, in 0.3 ms, but a line at a time; and
 * not every kernel offers it (CONFIG_NF_CONNTRACK_PROCFS).
 */
export function maybeTracked<Wanted extends Flows>(wanted: readonly Wanted[]): readonly Wanted[] {
  const count = readIfThere('/proc/sys/net/netfilter/nf_conntrack_count');
  if (count !== undefined && Number(count) === 0) return [];
  if (wanted.length === 0 || count === undefined || Number(count) > MANY) return wanted;
  const list = readIfThere('/proc/thread-self/net/nf_conntrack');
  return list === undefined ? wanted : listed(list, wanted);
}

/** Some 2 MB of text; with more entries the kernel's own filter is the faster one. */
const MANY = 10_000;

/**
 * A line of the list; `dport` comes twice, first that of the original direction:
 *
 *     ipv4     2 udp      17 29 src=10.0.0.1 dst=10.0.0.2 sport=4000 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=4000 mark=0 use=1
 */
export function listed<Wanted extends Flows>(list: string, wanted: readonly Wanted[]): readonly Wanted[] {
  const tracked = list.split('\n').map((line) => ({ line, port: Number(/ dport=(\d+)/.exec(line)?.[1]) }));
  return wanted.filter(({ protocol, originalPort, lastPort = originalPort }) =>
    tracked.some(
      ({ line, port }) => port >= originalPort && port <= lastPort && line.includes(` ${protocol} `),
    ),
  );
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1');
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT', 'EACCES', 'EPERM')) return undefined;
    throw thrown;
  }
}
