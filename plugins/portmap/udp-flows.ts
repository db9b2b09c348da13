import { toCniError } from '../../shared/cni/errors.ts';
import { Conntrack, maybeTracked, type ConntrackFilter } from '../../shared/kernel/conntrack.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { PortRanges } from '../../shared/packetfilter/port-ranges.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { ForwardedPorts, PortForwarding } from './backend.ts';
import { hostPortsOf, type HostPorts } from './mapping.ts';
import { withoutPrefixLength } from '../../shared/net/address.ts';

/**
 * Deletes stale UDP conntrack entries for ports that are forwarded from now on. The kernel decides NAT at the first packet of a flow, and
 * a UDP flow lives as long as packets come: a client that keeps its source port would never reach the new container. Only entries for
 * addresses of this host are deleted, not those of traffic that is routed through it to the same port.
 */
export function deleteFlowsTo(forwardings: readonly PortForwarding[], warn: (line: string) => void): void {
  const filters = forwardings.flatMap(({ family, mappings }) => {
    let cached: string[] | undefined;
    const originalAddresses = (): string[] => (cached ??= hostAddresses(family));
    const udp = mappings.filter(({ protocol }) => protocol === 'udp').map(hostPortsOf);
    return [...Map.groupBy(udp, ({ address }) => address)].map(([address, ports]) => ({
      ...filterOf(ports),
      family,
      ...(address === undefined ? { originalAddresses } : { originalAddress: address }),
    }));
  });
  deleteFlows(filters, warn);
}

/** Deletes UDP conntrack entries for ports whose rules were removed, exactly those that the container answers. */
export function deleteFlowsFrom(removed: readonly ForwardedPorts[], warn: (line: string) => void): void {
  const udp = removed.filter(({ protocol }) => protocol === 'udp');
  const groups = Map.groupBy(udp, ({ containerAddress }) => containerAddress);
  deleteFlows(
    [...groups].map(([replySource, ports]) => ({ ...filterOf(ports), replySource })),
    warn,
  );
}

/** One filter for any number of ports: each filter costs a listing of the kernel's table. */
function filterOf(
  ports: readonly HostPorts[],
): Pick<ConntrackFilter, 'protocol' | 'originalPort' | 'lastPort' | 'hasPort'> {
  const ranges = new PortRanges(ports);
  return {
    protocol: 'udp',
    originalPort: ports.reduce((least, { first }) => Math.min(least, first), Infinity),
    lastPort: ports.reduce((greatest, { last }) => Math.max(greatest, last), 0),
    hasPort: (port) => ranges.contains({ first: port, last: port }),
  };
}

/** A failure is only a warning: ports are forwarded also where the kernel offers no connection tracking over netlink. */
function deleteFlows(wanted: readonly ConntrackFilter[], warn: (line: string) => void): void {
  if (wanted.length === 0) return;
  const filters = maybeTracked(wanted);
  if (filters.length === 0) return;
  const warnFor = (which: string, thrown: unknown): void => {
    warn(`could not delete stale UDP conntrack entries for ${which}: ${toCniError(thrown).message}`);
  };
  try {
    using conntrack = Conntrack.open();
    for (const filter of filters) {
      try {
        conntrack.delete(filter);
      } catch (thrown) {
        warnFor(`port ${filter.originalPort}`, thrown);
      }
    }
  } catch (thrown) {
    warnFor('the mapped ports', thrown);
  }
}

function hostAddresses(family: Family): string[] {
  using rtnetlink = Rtnetlink.open();
  return addresses(rtnetlink, { family }).map(({ address }) => withoutPrefixLength(address));
}
