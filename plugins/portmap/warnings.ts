import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import { interfaceTo } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import {
  formatAddress,
  formatCidr,
  isLoopback,
  networkOf,
  withoutPrefixLength,
} from '../../shared/net/address.ts';
import { uplinkOf, warnOfForwardDrops } from '../../shared/packetfilter/forward-warnings.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { KnownPacket } from '../../shared/packetfilter/verdict/packet.ts';
import type { PortForwarding } from './backend.ts';

/** Warns in one line of each chain that drops connections to the published ports after their destination was translated. */
export function warnOfDrops(forwardings: readonly PortForwarding[], warn: (line: string) => void): void {
  const subnets = forwardings.map(({ container }) => formatCidr(networkOf(container)));
  warnOfForwardDrops(() => forwardings.flatMap(packetsOf), warn, { subnets });
}

/** The first packet of a connection to each mapping. Connections to a loopback address are local: they are not forwarded. */
function packetsOf({ family, container, mappings }: PortForwarding): KnownPacket[] {
  using rtnetlink = Rtnetlink.open();
  const destination = formatAddress(container.address);
  const outInterface = interfaceTo(rtnetlink, destination);
  const uplink = uplinkOf(family);
  const forwarded = mappings.filter(
    ({ hostAddress }) => hostAddress === undefined || !isLoopback(hostAddress),
  );
  const hostIps = new Set(
    forwarded.flatMap(({ hostAddress }) => (hostAddress ? [formatAddress(hostAddress)] : [])),
  );
  const interfaces = interfacesWith(rtnetlink, family, hostIps);
  return forwarded.map(({ protocol, containerPort, hostAddress }) => ({
    family: family === 'ipv4' ? 'ip' : 'ip6',
    inInterface: (hostAddress && interfaces.get(formatAddress(hostAddress))) ?? uplink,
    outInterface,
    destination,
    protocol,
    destinationPort: containerPort,
    state: 'new',
    translated: true,
  }));
}

/** By address, without `lo`: packets to its addresses arrive at another interface. */
function interfacesWith(
  rtnetlink: Rtnetlink,
  family: Family,
  hostIps: ReadonlySet<string>,
): Map<string, string> {
  if (hostIps.size === 0) return new Map();
  const own = addresses(rtnetlink, { family }).map(({ address, index }) => ({
    address: withoutPrefixLength(address),
    index,
  }));
  const found = own.filter(({ address }) => hostIps.has(address));
  const named = found.map(
    ({ address, index }) => [address, linkByIndex(rtnetlink, index)?.name ?? 'lo'] as const,
  );
  return new Map(named.filter(([, name]) => name !== 'lo'));
}
