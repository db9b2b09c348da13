import * as z from 'zod/mini';
import { formatAddress, parseAddress, type IpAddress } from '../../shared/net/address.ts';
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

/** Schema of `runtimeConfig.portMappings` as runtimes send it. */
export const mappingsSchema = z.array(mapping).check(
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

/** Whether a packet can be for both. */
export function overlap(one: HostPorts, other: HostPorts): boolean {
  if (one.protocol !== other.protocol) return false;
  if (one.last < other.first || other.last < one.first) return false;
  const [a, b] = [one.address, other.address];
  return a === undefined || b === undefined || a === b;
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
