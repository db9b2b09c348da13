import { formatAddress } from '../../shared/net/address.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { KnownAttachments } from '../../shared/attachments/attachments.ts';
import type { Attachment } from '../../shared/packetfilter/names.ts';
import type { Forwarding } from './backend.ts';
import type { Claim } from './mapping.ts';

/** A port of the host that another container's rules lead away. */
export interface Conflict extends Claim {
  /** Undefined when the rules do not say whose they are; the reference's nftables backend does not tell the network. */
  readonly holder: Holder | undefined;
  readonly containerAddress: string;
}

type Holder = Pick<Attachment, 'containerId'> & Partial<Attachment>;

/**
 * Decides about ports that other containers hold: one whose container lives is refused, one whose container is dead (its
 * DEL never came) is taken over.
 * @returns the conflicts whose rules are to be removed
 * @throws CniError 11 naming the holder
 */
export function refuseOrTakeOver<Found extends Conflict>(
  forwarding: Forwarding,
  conflicts: readonly Found[],
  warn: (line: string) => void,
): Found[] {
  if (conflicts.length === 0) return [];
  const known = new KnownAttachments(forwarding);
  for (const conflict of conflicts) {
    const why = whyDead(conflict, forwarding, known);
    if (why === undefined) throw held(conflict);
    warn(`taking over ${portText(conflict)} from ${holderText(conflict)}: ${why}`);
  }
  return [...conflicts];
}

/**
 * Why the holder cannot be using its port any more, or undefined when it may. Taking a port from a living container would
 * silently send its traffic elsewhere, so every doubt counts for it:
 *
 * 1. its address is this container's now, or leased to yet another one: it cannot have it any more;
 * 2. some network namespace has its address: it lives;
 * 3. the runtime's cached result names a namespace that exists, or one is named after it: it may live (its interface may be down);
 * 4. otherwise nothing on this host has the address that its port leads to.
 */
function whyDead(
  { holder, containerAddress }: Conflict,
  { container }: Forwarding,
  known: KnownAttachments,
): string | undefined {
  if (formatAddress(container.address) === containerAddress)
    return `${containerAddress} is this container's now`;
  const newLease = known
    .leasesOfAddress(containerAddress)
    .find((lease) => lease.containerId !== holder?.containerId);
  if (newLease !== undefined && holder !== undefined) {
    return `${containerAddress} is leased to container ${newLease.containerId} of network ${newLease.network} now`;
  }
  if (known.mayBeAlive({ ...holder, address: containerAddress })) return undefined;
  return `no network namespace of this host has ${containerAddress}`;
}

function held(conflict: Conflict): CniError {
  return new CniError(
    CniCode.TryAgainLater,
    `host port ${portText(conflict)} is held by ${holderText(conflict)}, which is alive`,
    {
      details:
        'stop that container, choose another port, or set "portConflict": "reference" (the first one wins then)',
    },
  );
}

function holderText({ holder, containerAddress }: Conflict): string {
  const at = `at ${containerAddress}`;
  if (holder === undefined) return `a container ${at}`;
  const of = holder.network === undefined ? '' : `of network ${holder.network} `;
  return `container ${holder.containerId} ${of}${at}`;
}

function portText({ protocol, first, last, address }: Conflict): string {
  const ports = first === last ? String(first) : `${first}-${last}`;
  return address === undefined ? `${ports}/${protocol}` : `${ports}/${protocol} of ${address}`;
}
