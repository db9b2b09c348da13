import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { deleteConntrack, type ConntrackFilter } from '../../shared/kernel/conntrack.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import { formatAddress } from '../../shared/cni/address.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { Forwarding, Released } from './backend.ts';

/**
 * Makes the kernel forget UDP flows to ports that lead to a container from now on. NAT is decided by a flow's first packet,
 * and a UDP flow lives as long as packets come: a client that keeps its source port would go on talking to nobody, or to
 * the container that had the port before. Only flows to addresses of this host are meant: what is only forwarded
 * through it to the same port elsewhere stays.
 */
export function forgetFlowsTo(forwardings: readonly Forwarding[], warn: (line: string) => void): void {
  for (const { family, mappings } of forwardings) {
    const udp = mappings.filter(({ protocol }) => protocol === 'udp');
    if (udp.length === 0) continue;
    const local = localAddresses(family);
    for (const { hostPort, range, hostAddress } of udp) {
      const originalAddresses = hostAddress === undefined ? local : [formatAddress(hostAddress)];
      forget(hostPort, hostPort + range - 1, { originalAddresses }, warn);
    }
  }
}

/** The same for ports that led to a container until now: exactly the flows that still go there. */
export function forgetFlowsOf(released: readonly Released[], warn: (line: string) => void): void {
  for (const { protocol, first, last, containerAddress } of released) {
    if (protocol === 'udp') forget(first, last, { replySource: containerAddress }, warn);
  }
}

/** A host without connection tracking over netlink has forwarded ports all the same: no reason to fail. */
function forget(
  first: number,
  last: number,
  filter: Pick<ConntrackFilter, 'originalAddresses' | 'replySource'>,
  warn: (line: string) => void,
): void {
  try {
    deleteConntrack({ protocol: 'udp', originalPort: first, lastPort: last, ...filter });
  } catch (thrown) {
    warn(`old UDP flows to port ${first} may go on to where they went: ${toCniError(thrown).message}`);
  }
}

function localAddresses(family: Family): string[] {
  using rtnetlink = Rtnetlink.open();
  return addresses(rtnetlink, { family }).map(({ address }) => address.replace(/\/\d+$/, ''));
}
