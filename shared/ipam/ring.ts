import { compareAddresses, nextAddress, type IpAddress } from '../net/address.ts';
import { rangeOf, type RangeSet } from './ranges.ts';

/** Where free addresses are looked for: inclusive at both ends. */
export interface Interval {
  readonly first: IpAddress;
  readonly last: IpAddress;
}

/**
 * The next address to hand out: round robin through the set, beginning after the one handed out last, so that a released
 * address rests until the ring comes round to it (a peer's neighbour cache and a client's connections outlive it).
 * @param lastReserved of `last_reserved_ip`; outside of the set, or undefined: from the first range's start
 * @param firstFree the first address of an interval that has no lease
 * @param isExcluded addresses of the set that are never handed out
 * @returns undefined when none is left
 */
export function nextFree(
  set: RangeSet,
  lastReserved: IpAddress | undefined,
  firstFree: (interval: Interval) => IpAddress | undefined,
  isExcluded: (address: IpAddress) => boolean,
): IpAddress | undefined {
  for (const { first, last } of ring(set, lastReserved)) {
    let from: IpAddress | undefined = first;
    while (from !== undefined && compareAddresses(from, last) <= 0) {
      const free = firstFree({ first: from, last });
      if (free === undefined) break;
      if (!isExcluded(free)) return free;
      from = nextAddress(free);
    }
  }
  return undefined;
}

/** All of the set, each address once, in the order of the search; the last reserved one comes last. */
export function ring(set: RangeSet, lastReserved: IpAddress | undefined): Interval[] {
  const current = lastReserved === undefined ? undefined : rangeOf(set, lastReserved);
  if (current === undefined || lastReserved === undefined)
    return set.map(({ first, last }) => ({ first, last }));
  const at = set.indexOf(current);
  const after = nextAddress(lastReserved);
  const rest =
    after !== undefined && compareAddresses(after, current.last) <= 0
      ? [{ first: after, last: current.last }]
      : [];
  return [
    ...rest,
    ...set.slice(at + 1).map(({ first, last }) => ({ first, last })),
    ...set.slice(0, at).map(({ first, last }) => ({ first, last })),
    { first: current.first, last: lastReserved },
  ];
}
