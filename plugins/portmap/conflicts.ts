import { KnownAttachments } from '../../shared/attachments/attachments.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { formatAddress } from '../../shared/net/address.ts';
import type { Attachment } from '../../shared/packetfilter/names.ts';
import type { ForwardedPorts, PortForwarding } from './backend.ts';

/** Ports that rules of another container forward, and that this container asks for. */
export interface PortConflict extends ForwardedPorts {
  /** Undefined when the rules do not name their container. Rules of the reference's nftables back end lack the network. */
  readonly owner: (Pick<Attachment, 'containerId'> & Partial<Attachment>) | undefined;
}

/**
 * Refuses ports of running containers. A container whose DEL never came is dead; its ports may be taken over.
 * @returns the conflicts whose rules are to be removed
 * @throws CniError 11 naming the running container
 */
export function resolveConflicts<Conflict extends PortConflict>(
  forwarding: PortForwarding,
  conflicts: readonly Conflict[],
  warn: (line: string) => void,
): Conflict[] {
  if (conflicts.length === 0) return [];
  const known = new KnownAttachments(forwarding);
  for (const conflict of conflicts) {
    const reason = reasonDead(conflict, forwarding, known);
    if (reason === undefined) throw portInUse(conflict);
    warn(`host port ${portText(conflict)}: taken over from ${ownerText(conflict)}: ${reason}`);
  }
  return [...conflicts];
}

/**
 * Why the owner cannot use its port any more; undefined when it may. Taking the port of a running container would silently redirect its
 * traffic, so the owner counts as running when in doubt:
 *
 * 1. dead, when its address belongs to this container now, or is leased to another one;
 * 2. running, when a network namespace has its address, or when not all namespaces can be read;
 * 3. running, when a namespace is named after it, or is named by the runtime's cached result (its interface may be down or moved);
 * 4. dead otherwise: nothing on this host has the address that its port is forwarded to.
 */
function reasonDead(
  { owner, containerAddress }: PortConflict,
  { container }: PortForwarding,
  known: KnownAttachments,
): string | undefined {
  if (formatAddress(container.address) === containerAddress)
    return `${containerAddress} belongs to this container now`;
  const newLease = known
    .leasesOfAddress(containerAddress)
    .find((lease) => lease.containerId !== owner?.containerId);
  if (newLease !== undefined && owner !== undefined) {
    return `${containerAddress} is now leased to container ${newLease.containerId} of network ${newLease.network}`;
  }
  if (known.mayBeAlive({ ...owner, address: containerAddress })) return undefined;
  return `no network namespace of this host has ${containerAddress}`;
}

function portInUse(conflict: PortConflict): CniError {
  return new CniError(
    CniCode.TryAgainLater,
    `host port ${portText(conflict)} is already in use by running ${ownerText(conflict)}`,
    {
      details:
        'stop that container, choose another port, or set "portConflict": "reference" (the first container keeps the port then)',
    },
  );
}

function ownerText({ owner, containerAddress }: PortConflict): string {
  const address = `(${containerAddress})`;
  if (owner === undefined) return `container ${address}`;
  const network = owner.network === undefined ? '' : `of network ${owner.network} `;
  return `container ${owner.containerId} ${network}${address}`;
}

function portText({ protocol, first, last, address }: PortConflict): string {
  const ports = first === last ? String(first) : `${first}-${last}`;
  return address === undefined ? `${ports}/${protocol}` : `${ports}/${protocol} on ${address}`;
}
