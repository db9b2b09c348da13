import * as z from 'zod/mini';
import { formatAddress, parseAddress, type IpAddress } from '../../shared/net/address.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';

/** One port, or a run of neighbouring ports, of the host that leads to the container. */
export interface Mapping {
  readonly protocol: Protocol;
  readonly hostPort: number;
  readonly containerPort: number;
  /** How many ports, counted up from both. */
  readonly range: number;
  /** Only connections to this address of the host. */
  readonly hostAddress: IpAddress | undefined;
  /** Families it applies to: one that names an address, also the unspecified one, is for that family alone. */
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
    error: 'must be an IPv4 or IPv6 address, or empty for all of them',
  }),
);

const mapping = z.object({
  hostPort: port,
  containerPort: port,
  protocol,
  hostIP: z._default(hostIP, ''),
  range: z._default(port, 1),
});

/** `runtimeConfig.portMappings`, as runtimes send it. */
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

/** Mappings in the order given; one that says the same as an earlier one is left out. */
export function readMappings(raw: z.output<typeof mappingsSchema>): Mapping[] {
  const mappings = raw.map(({ hostPort, containerPort, protocol: given, hostIP: address, range }) => ({
    protocol: given.toLowerCase() as Protocol,
    hostPort,
    containerPort,
    range,
    ...place(parseAddress(address)),
  }));
  const keys = mappings.map(describeMapping);
  return mappings.filter((_, at) => keys.indexOf(keys[at] ?? '') === at);
}

/** `8080/tcp`, `192.0.2.1:8000-8099/udp to 9000`: for messages. */
export function describeMapping(one: Mapping): string {
  const { protocol: name, hostPort, containerPort, range, hostAddress, families } = one;
  const ports = range === 1 ? String(hostPort) : `${hostPort}-${hostPort + range - 1}`;
  const any = families.length > 1 ? '' : families[0] === 'ipv4' ? '0.0.0.0:' : '[::]:';
  const address = hostAddress === undefined ? any : `${bracketed(hostAddress)}:`;
  return `${address}${ports}/${name} to ${containerPort}`;
}

/** Whether both claim the same port of the same address of the host. */
export function collide(one: Claim, other: Claim): boolean {
  if (one.protocol !== other.protocol) return false;
  if (one.last < other.first || other.last < one.first) return false;
  const [a, b] = [one.address, other.address];
  return a === undefined || b === undefined || a === b;
}

/** Ports of one family that something leads away. */
export interface Claim {
  readonly protocol: Protocol;
  readonly first: number;
  readonly last: number;
  /** Canonical text; undefined: every address of the host. */
  readonly address: string | undefined;
}

export function claimOf({ protocol: name, hostPort, range, hostAddress }: Mapping): Claim {
  const address = hostAddress === undefined ? undefined : formatAddress(hostAddress);
  return { protocol: name, first: hostPort, last: hostPort + range - 1, address };
}

function isProtocol(text: string): text is Protocol {
  return text === 'tcp' || text === 'udp' || text === 'sctp';
}

function place(address: IpAddress | undefined): Pick<Mapping, 'hostAddress' | 'families'> {
  if (address === undefined) return { hostAddress: undefined, families: ['ipv4', 'ipv6'] };
  return { hostAddress: address.value === 0n ? undefined : address, families: [address.family] };
}

function bracketed(address: IpAddress): string {
  return address.family === 'ipv4' ? formatAddress(address) : `[${formatAddress(address)}]`;
}
