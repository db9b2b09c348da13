import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { Conntrack, type ConntrackFilter, maybeTracked } from '../../shared/kernel/conntrack.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import { formatAddress } from '../../shared/net/address.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { Forwarding, Released } from './backend.ts';

/**
 * Makes the kernel forget UDP flows to ports that lead to a container from now on. NAT is decided by a flow's first packet,
 * and a UDP flow lives as long as packets come: a client that keeps its source port would go on talking to nobody, or to
 * the container that had the port before. Only flows to addresses of this host are meant: what is only forwarded
 * through it to the same port elsewhere stays.
 */
export function forgetFlowsTo(forwardings: readonly Forwarding[], warn: (line: string) => void): void {
  const filters = forwardings.flatMap(({ family, mappings }) => {
    let local: string[] | undefined;
    const ofThisHost = (): string[] => (local ??= localAddresses(family));
    const udp = mappings.filter(({ protocol }) => protocol === 'udp');
    return udp.map(({ hostPort, range, hostAddress }) => ({
      ...ports(hostPort, hostPort + range - 1),
      family,
      ...(hostAddress === undefined
        ? { originalAddresses: ofThisHost }
        : { originalAddress: formatAddress(hostAddress) }),
    }));
  });
  forget(filters, warn);
}

/** The same for ports that led to a container until now: exactly the flows that still go there. */
export function forgetFlowsOf(released: readonly Released[], warn: (line: string) => void): void {
  const udp = released.filter(({ protocol }) => protocol === 'udp');
  forget(
    udp.map(({ first, last, containerAddress }) => ({
      ...ports(first, last),
      replySource: containerAddress,
    })),
    warn,
  );
}

function ports(first: number, last: number): Pick<ConntrackFilter, 'protocol' | 'originalPort' | 'lastPort'> {
  return { protocol: 'udp', originalPort: first, lastPort: last };
}

/** A host without connection tracking over netlink has forwarded ports all the same: no reason to fail. */
function forget(wanted: readonly ConntrackFilter[], warn: (line: string) => void): void {
  if (wanted.length === 0) return;
  const filters = maybeTracked(wanted);
  if (filters.length === 0) return;
  const tell = (which: string, thrown: unknown): void => {
    warn(`old UDP flows to ${which} may go on to where they went: ${toCniError(thrown).message}`);
  };
  try {
    using conntrack = Conntrack.open();
    for (const filter of filters) {
      try {
        conntrack.delete(filter);
      } catch (thrown) {
        tell(`port ${filter.originalPort}`, thrown);
      }
    }
  } catch (thrown) {
    tell('mapped ports', thrown);
  }
}

function localAddresses(family: Family): string[] {
  using rtnetlink = Rtnetlink.open();
  return addresses(rtnetlink, { family }).map(({ address }) => address.replace(/\/\d+$/, ''));
}
