import * as z from 'zod/mini';
import { formatAddress, parseAddress, type IpAddress } from '../../shared/net/address.ts';
import { PortRanges } from '../../shared/packetfilter/port-ranges.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';

/** One entry of `runtimeConfig.portMappings`: a host port, or a range of them, that is forwarded to the container. */
export interface PortMapping {
  readonly protocol: Protocol;
  readonly hostPort: number;
  readonly containerPort: number;
  /** Number of ports, counted up from hostPort and containerPort. */
  readonly range: number;
  /** Only connections to this address of the host are forwarded; undefined: all addresses. */
  readonly hostAddress: IpAddress | undefined;
  /** Families in which the mapping applies: a hostIP, the unspecified address included, restricts it to its own. */
  readonly families: readonly Family[];
}

export type Protocol = 'tcp' | 'udp' | 'sctp';

const port = z
  .int()
  .check(
    z.gte(1, 'must be a port number from 1 to 65535'),
    z.lte(65_535, 'must be a port number from 1 to 65535'),
  );

const protocol = z
  .string()
  .check(z.refine((text) => isProtocol(text.toLowerCase()), { error: 'must be tcp, udp or sctp' }));

const hostIP = z.string().check(
  z.refine((text) => text === '' || parseAddress(text) !== undefined, {
    error: 'must be an IPv4 or IPv6 address, or empty for all addresses',
  }),
);

const mapping = z.object({
  hostPort: port,
  containerPort: port,
  protocol,
  hostIP: z._default(hostIP, ''),
  range: z._default(port, 1),
});

/** A real request has at most a few thousand: a runtime may send one mapping per port of a published range. */
const MOST_MAPPINGS = 16_384;

/** Schema of `runtimeConfig.portMappings` as runtimes send it. */
export const mappingsSchema = z.array(mapping).check(
  z.maxLength(MOST_MAPPINGS, `must have at most ${MOST_MAPPINGS} entries; use "range" for ranges of ports`),
  z.superRefine((mappings, context) => {
    for (const [at, { hostPort, containerPort, range }] of mappings.entries()) {
      if (Math.max(hostPort, containerPort) + range - 1 <= 65_535) continue;
      context.addIssue({
        code: 'custom',
        path: [at, 'range'],
        message: 'must end at port 65535 or before',
        input: range,
      });
    }
  }),
);

/** The mappings in the order given, without repetitions. */
export function readMappings(raw: z.output<typeof mappingsSchema>): PortMapping[] {
  const mappings = raw.map(({ hostPort, containerPort, protocol: given, hostIP: address, range }) => ({
    protocol: given.toLowerCase() as Protocol,
    hostPort,
    containerPort,
    range,
    ...scopeOf(parseAddress(address)),
  }));
  const distinct = new Map<string, PortMapping>();
  for (const one of mappings) {
    const key = describeMapping(one);
    if (!distinct.has(key)) distinct.set(key, one);
  }
  return [...distinct.values()];
}

/** `8080/tcp to 80`, `192.0.2.1:8000-8099/udp to 9000`: for messages. */
export function describeMapping(one: PortMapping): string {
  const { protocol: name, hostPort, containerPort, range, hostAddress, families } = one;
  const ports = range === 1 ? String(hostPort) : `${hostPort}-${hostPort + range - 1}`;
  const any = families.length > 1 ? '' : families[0] === 'ipv4' ? '0.0.0.0:' : '[::]:';
  const address = hostAddress === undefined ? any : `${bracketed(hostAddress)}:`;
  return `${address}${ports}/${name} to ${containerPort}`;
}

/** Ports of the host, in one family. */
export interface HostPorts {
  readonly protocol: Protocol;
  readonly first: number;
  readonly last: number;
  /** Canonical text; undefined: every address of the host. */
  readonly address: string | undefined;
}

export function hostPortsOf({ protocol: name, hostPort, range, hostAddress }: PortMapping): HostPorts {
  const address = hostAddress === undefined ? undefined : formatAddress(hostAddress);
  return { protocol: name, first: hostPort, last: hostPort + range - 1, address };
}

/** Host ports of one family, searched in logarithmic time. */
export class HostPortIndex {
  readonly #byScope: ReadonlyMap<string, PortRanges>;

  constructor(ports: readonly HostPorts[]) {
    const scopes = new Map<string, HostPorts[]>();
    for (const one of ports) {
      for (const scope of [one.protocol, `${one.protocol} ${one.address ?? ANY}`]) {
        const list = scopes.get(scope);
        if (list === undefined) scopes.set(scope, [one]);
        else list.push(one);
      }
    }
    this.#byScope = new Map([...scopes].map(([scope, list]) => [scope, new PortRanges(list)]));
  }

  /** Whether a packet can be for one of them and for one of these. */
  overlaps(ports: HostPorts): boolean {
    const { protocol: name, address } = ports;
    const scopes = address === undefined ? [name] : [`${name} ${ANY}`, `${name} ${address}`];
    return scopes.some((scope) => this.#byScope.get(scope)?.overlaps(ports) === true);
  }
}

const ANY = '*';

/** Pairs of mappings that forward one host port to two container ports, as sentences; one for each mapping at most. */
export function contradictingMappings(mappings: readonly PortMapping[]): string[] {
  const problems = (['ipv4', 'ipv6'] as const).flatMap((family) =>
    (['tcp', 'udp', 'sctp'] as const).flatMap((name) =>
      contradictionsAmong(mappings.filter((one) => one.families.includes(family) && one.protocol === name)),
    ),
  );
  return [...new Set(problems)];
}

/**
 * Mappings of one family and protocol by first port, each compared with those before it that reach furthest: on all addresses, on its own
 * address, and on any address. Ranges with the same distance between host and container port agree.
 */
function contradictionsAmong(mappings: readonly PortMapping[]): string[] {
  const furthest = new Map<string, Reach>();
  return mappings
    .map((mapping, at) => ({ mapping, at }))
    .toSorted((one, other) => one.mapping.hostPort - other.mapping.hostPort)
    .flatMap((current) => {
      const { hostAddress } = current.mapping;
      const address = hostAddress === undefined ? ANY : formatAddress(hostAddress);
      const scopes = hostAddress === undefined ? ['all'] : [ANY, address];
      const other = scopes
        .map((scope) => furthest.get(scope)?.differing(current.mapping))
        .find((found) => found !== undefined && lastPort(found.mapping) >= current.mapping.hostPort);
      for (const scope of ['all', address]) {
        const reach = furthest.get(scope) ?? new Reach();
        furthest.set(scope, reach);
        reach.add(current);
      }
      if (other === undefined) return [];
      const [first, second] = other.at < current.at ? [other, current] : [current, other];
      const texts = [first, second].map(({ mapping }) => describeMapping(mapping));
      return [`two port mappings use the same host port: ${texts.join(' and ')}`];
    });
}

interface Positioned {
  readonly mapping: PortMapping;
  readonly at: number;
}

/** The mappings that reach furthest, of two different distances between host and container port. */
class Reach {
  #best: Positioned | undefined;
  #second: Positioned | undefined;

  add(one: Positioned): void {
    if (this.#best === undefined || lastPort(one.mapping) > lastPort(this.#best.mapping)) {
      if (this.#best !== undefined && shift(this.#best.mapping) !== shift(one.mapping))
        this.#second = this.#best;
      this.#best = one;
    } else if (
      shift(one.mapping) !== shift(this.#best.mapping) &&
      (this.#second === undefined || lastPort(one.mapping) > lastPort(this.#second.mapping))
    ) {
      this.#second = one;
    }
  }

  /** The furthest one whose distance differs. */
  differing(mapping: PortMapping): Positioned | undefined {
    const [best, second] = [this.#best, this.#second];
    return best === undefined || shift(best.mapping) !== shift(mapping) ? best : second;
  }
}

function shift({ hostPort, containerPort }: PortMapping): number {
  return containerPort - hostPort;
}

function lastPort({ hostPort, range }: PortMapping): number {
  return hostPort + range - 1;
}

export function isProtocol(text: string | undefined): text is Protocol {
  return text === 'tcp' || text === 'udp' || text === 'sctp';
}

function scopeOf(address: IpAddress | undefined): Pick<PortMapping, 'hostAddress' | 'families'> {
  if (address === undefined) return { hostAddress: undefined, families: ['ipv4', 'ipv6'] };
  return { hostAddress: address.value === 0n ? undefined : address, families: [address.family] };
}

function bracketed(address: IpAddress): string {
  return address.family === 'ipv4' ? formatAddress(address) : `[${formatAddress(address)}]`;
}
