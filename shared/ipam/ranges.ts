import {
  compareAddresses,
  containsAddress,
  firstAddress,
  formatAddress,
  formatCidr,
  lastAddress,
  networkOf,
  nextAddress,
  offsetAddress,
  parseAddress,
  parseCidr,
  sameAddress,
  familyBits,
  type Cidr,
  type IpAddress,
} from '../net/address.ts';

/** One range of allocatable addresses, all defaults filled in. */
export interface Range {
  readonly subnet: Cidr;
  readonly first: IpAddress;
  readonly last: IpAddress;
  /** Not checked against the subnet: a router may be outside of it. */
  readonly gateway: IpAddress;
}

/** Ranges that an interface gets one address from; never empty, one family, none overlapping another. */
export type RangeSet = readonly Range[];

/** A range as the configuration has it. Empty strings count as absent, as in the reference. */
export interface RawRange {
  readonly subnet?: string | undefined;
  readonly rangeStart?: string | undefined;
  readonly rangeEnd?: string | undefined;
  readonly gateway?: string | undefined;
}

/**
 * Reads all range sets and checks each by itself and against the others.
 * @returns the valid sets, and a sentence for every problem found
 */
export function readRangeSets(raw: readonly (readonly RawRange[])[]): {
  sets: RangeSet[];
  problems: string[];
} {
  const count = raw.reduce((sum, set) => sum + set.length, 0);
  if (count > MOST_RANGES)
    return { sets: [], problems: [`${count} ranges; at most ${MOST_RANGES} are supported`] };
  const problems: string[] = [];
  const sets: RangeSet[] = [];
  for (const [at, rawSet] of raw.entries()) {
    const found = readRangeSet(rawSet);
    problems.push(...found.problems.map((problem) => `invalid range set ${at}: ${problem}`));
    sets.push(found.set);
  }
  if (raw.length === 0) problems.push('no IP ranges specified');
  return { sets, problems: [...problems, ...overlapsBetween(sets)] };
}

export function inRange(range: Range, address: IpAddress): boolean {
  return (
    containsAddress(range.subnet, address) &&
    compareAddresses(address, range.first) >= 0 &&
    compareAddresses(address, range.last) <= 0
  );
}

/** Far more than any network has; every address is compared with each of them. */
const MOST_RANGES = 1000;
const MOST_SHOWN = 8;

/** The range of the set that the address lies in. */
export function rangeOf(set: RangeSet, address: IpAddress): Range | undefined {
  return set.find((range) => inRange(range, address));
}

/** How messages name a set: `10.1.2.1-10.1.2.254`, several joined by commas, of many the first ones. */
export function describeSet(set: RangeSet): string {
  const shown = set.slice(0, MOST_SHOWN).map(describe).join(',');
  return set.length <= MOST_SHOWN ? shown : `${shown} and ${set.length - MOST_SHOWN} more`;
}

function listed(texts: readonly string[]): string {
  const shown = texts.slice(0, MOST_SHOWN).join(', ');
  return texts.length <= MOST_SHOWN ? shown : `${shown} and ${texts.length - MOST_SHOWN} more`;
}

function readRangeSet(raw: readonly RawRange[]): { set: RangeSet; problems: string[] } {
  const problems: string[] = [];
  const set: Range[] = [];
  for (const rawRange of raw) {
    const range = readRange(rawRange, problems);
    if (range !== undefined) set.push(range);
  }
  if (raw.length === 0) problems.push('empty range set (give it at least one {"subnet": ...})');
  const family = set[0]?.subnet.address.family;
  if (set.some((range) => range.subnet.address.family !== family)) {
    problems.push(`mixed address families: ${listed(set.map(({ subnet }) => formatCidr(subnet)))}`);
  }
  for (const [one, other] of overlaps(set)) {
    problems.push(`subnets ${describe(set[one])} and ${describe(set[other])} overlap`);
  }
  return { set, problems };
}

function readRange(raw: RawRange, problems: string[]): Range | undefined {
  const before = problems.length;
  const subnet = readSubnet(raw.subnet ?? '', problems);
  const start = readOptional(raw.rangeStart, 'rangeStart', problems);
  const end = readOptional(raw.rangeEnd, 'rangeEnd', problems);
  const gateway = readOptional(raw.gateway, 'gateway', problems);
  if (subnet === undefined || problems.length > before) return undefined;
  const defaults = defaultsOf(subnet);
  const range = {
    subnet,
    first: start ?? defaults.first,
    last: end ?? defaults.last,
    gateway: gateway ?? defaults.first,
  };
  problems.push(...limitProblems(range));
  return problems.length > before ? undefined : range;
}

function readSubnet(text: string, problems: string[]): Cidr | undefined {
  const subnet = parseCidr(text);
  if (subnet === undefined) {
    problems.push(`invalid CIDR address: ${text === '' ? '"subnet" is required, like "10.1.2.0/24"' : text}`);
    return undefined;
  }
  const network = networkOf(subnet);
  if (!sameAddress(network.address, subnet.address)) {
    const given = `${formatCidr(subnet)} has host bits set`;
    const right = `For a subnet mask of length ${subnet.prefix} the network address is ${formatAddress(network.address)}`;
    problems.push(`Network has host bits set. ${right} (given: ${given})`);
    return undefined;
  }
  // With two host addresses at most, none is left besides network, gateway and broadcast.
  if (subnet.prefix > familyBits(subnet.address.family) - 2) {
    problems.push(`Network ${formatCidr(subnet)} too small to allocate from`);
    return undefined;
  }
  return subnet;
}

function readOptional(text: string | undefined, key: string, problems: string[]): IpAddress | undefined {
  if (text === undefined || text === '') return undefined;
  const address = parseAddress(text);
  if (address === undefined) problems.push(`invalid IP address: ${text} (${key})`);
  return address;
}

/** From the address after the network address, which is also the default gateway, to the last one before the broadcast address. */
function defaultsOf(subnet: Cidr): { first: IpAddress; last: IpAddress } {
  const last = lastAddress(subnet);
  return {
    first: step(firstAddress(subnet), 1n),
    last: last.family === 'ipv4' ? step(last, -1n) : last,
  };
}

function step(address: IpAddress, distance: bigint): IpAddress {
  return offsetAddress(address, distance) ?? address;
}

function limitProblems({ subnet, first, last }: Range): string[] {
  const outside = (name: string, address: IpAddress): string[] =>
    containsAddress(subnet, address)
      ? []
      : [`${name} ${formatAddress(address)} not in network ${formatCidr(subnet)}`];
  const problems = [...outside('RangeStart', first), ...outside('RangeEnd', last)];
  if (problems.length === 0 && compareAddresses(first, last) > 0) {
    problems.push(`RangeStart ${formatAddress(first)} is after RangeEnd ${formatAddress(last)}`);
  }
  return problems;
}

function overlapsBetween(sets: readonly RangeSet[]): string[] {
  const ranges = sets.flatMap((set, at) => set.map((range) => ({ ...range, at })));
  const pairs = overlaps(ranges)
    .map(([one, other]): [number, number] => [ranges[one]?.at ?? 0, ranges[other]?.at ?? 0])
    .filter(([one, other]) => one !== other);
  const distinct = new Map(pairs.map((pair) => [pair.join(), pair]));
  return [...distinct.values()].map(
    ([one, other]) =>
      `range set ${one} overlaps with ${other}: ${describeSet(sets[one] ?? [])} and ${describeSet(sets[other] ?? [])}`,
  );
}

/**
 * Pairs of positions, the lower one first, of ranges that overlap; at most one pair per range, in n log n steps: in the order of their
 * first addresses, a range overlaps an earlier one only if it begins before the highest last address so far.
 */
function overlaps(ranges: readonly Range[]): [number, number][] {
  const sorted = [...ranges.entries()].sort(([, a], [, b]) => compareAddresses(a.first, b.first));
  const found: [number, number][] = [];
  let highest: [number, Range] | undefined;
  for (const [at, range] of sorted) {
    const isSameFamily = highest?.[1].first.family === range.first.family;
    if (highest !== undefined && isSameFamily && compareAddresses(range.first, highest[1].last) <= 0)
      found.push(at < highest[0] ? [at, highest[0]] : [highest[0], at]);
    if (highest === undefined || !isSameFamily || compareAddresses(range.last, highest[1].last) > 0)
      highest = [at, range];
  }
  return found.sort(([a, b], [c, d]) => a - c || b - d);
}

function describe(range: Range | undefined): string {
  return range === undefined ? '' : `${formatAddress(range.first)}-${formatAddress(range.last)}`;
}

/** Addresses from first to last, both included. */
export interface Interval {
  readonly first: IpAddress;
  readonly last: IpAddress;
}

/**
 * The next address to hand out: round robin through the set, beginning after the one handed out last, so that a released
 * address is reused as late as possible (neighbour caches and clients' connections outlive a container).
 * @param lastReserved of `last_reserved_ip`; if it is undefined or outside of the set, the search begins at the first range
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
