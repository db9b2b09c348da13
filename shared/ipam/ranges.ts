import {
  compareAddresses,
  containsAddress,
  firstAddress,
  formatAddress,
  formatCidr,
  lastAddress,
  networkOf,
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
  /** Not checked against the subnet: a router may live elsewhere. */
  readonly gateway: IpAddress;
}

/** Ranges that an interface gets one address from; never empty, one family, none overlapping another. */
export type RangeSet = readonly Range[];

/** A range as the configuration has it. Empty texts count as absent, as they do in the reference. */
export interface RawRange {
  readonly subnet?: string | undefined;
  readonly rangeStart?: string | undefined;
  readonly rangeEnd?: string | undefined;
  readonly gateway?: string | undefined;
}

/**
 * Reads all range sets and checks each by itself and against the others.
 * @returns the sets that are sound, and a sentence for every problem found
 */
export function readRangeSets(raw: readonly (readonly RawRange[])[]): {
  sets: RangeSet[];
  problems: string[];
} {
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

/** The range of the set that the address lies in. */
export function rangeOf(set: RangeSet, address: IpAddress): Range | undefined {
  return set.find((range) => inRange(range, address));
}

/** `10.1.2.1-10.1.2.254`, several joined by commas: how messages name a set. */
export function describeSet(set: RangeSet): string {
  return set.map(describe).join(',');
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
    problems.push(`mixed address families: ${set.map(({ subnet }) => formatCidr(subnet)).join(', ')}`);
  }
  for (const [a, b] of pairs(set)) {
    if (rangesOverlap(a, b)) problems.push(`subnets ${describe(a)} and ${describe(b)} overlap`);
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
  // With two host addresses at most nothing is left beside network, gateway and broadcast.
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

/** From the address after the network's own, which is also the default gateway, to the last that is no broadcast address. */
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
  const problems: string[] = [];
  for (const [at, set] of sets.entries()) {
    for (const [distance, other] of sets.slice(at + 1).entries()) {
      if (set.some((range) => other.some((otherRange) => rangesOverlap(range, otherRange)))) {
        problems.push(
          `range set ${at} overlaps with ${at + 1 + distance}: ${describeSet(set)} and ${describeSet(other)}`,
        );
      }
    }
  }
  return problems;
}

function rangesOverlap(a: Range, b: Range): boolean {
  if (a.subnet.address.family !== b.subnet.address.family) return false;
  return compareAddresses(a.first, b.last) <= 0 && compareAddresses(b.first, a.last) <= 0;
}

function pairs<T>(items: readonly T[]): [T, T][] {
  return items.flatMap((item, at) => items.slice(at + 1).map((other): [T, T] => [item, other]));
}

function describe({ first, last }: Range): string {
  return `${formatAddress(first)}-${formatAddress(last)}`;
}
