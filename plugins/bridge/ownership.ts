import type { NetworkNamespace } from '../../shared/kernel/namespace.ts';
import { type LinkInfo, linkByIndex, linkByName, namespaceId } from '../../shared/kernel/rtnetlink/links.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { attachmentOfAlias, type Identity } from './identity.ts';

/** Whether a link on the host is our end of this very attachment. */
export function isOurs(link: LinkInfo, identity: Identity): boolean {
  if (link.kind !== 'veth') return false;
  if (link.alias !== undefined && link.alias === identity.alias) return true;
  // The label comes one message after the link: an ADD killed between them leaves name and MAC.
  return link.alias === undefined && link.mac === identity.hostMac && identity.hostNames.includes(link.name);
}

/** Whether a link on the host carries the label of any attachment of ours. */
export function isLabelled(link: LinkInfo): boolean {
  return attachmentOfAlias(link.alias) !== undefined;
}

/** Our end on the host, looked for under the names that it can have. */
export function findHostEnd(host: Rtnetlink, identity: Identity): LinkInfo | undefined {
  for (const name of identity.hostNames) {
    const link = linkByName(host, name);
    if (link !== undefined && isOurs(link, identity)) return link;
  }
  return undefined;
}

/**
 * The host's end of a veth in a container's namespace. Indexes repeat from namespace to namespace, so the far end must
 * also say that its peer lives in that namespace.
 * @returns undefined when its other end is not on this host's own network stack
 */
export function hostEndOf(
  host: Rtnetlink,
  link: LinkInfo,
  namespace: NetworkNamespace,
): LinkInfo | undefined {
  if (link.kind !== 'veth' || link.peerIndex === undefined) return undefined;
  const end = linkByIndex(host, link.peerIndex);
  if (end?.kind !== 'veth' || end.peerIndex !== link.index) return undefined;
  return end.peerNamespaceId === namespaceId(host, namespace) ? end : undefined;
}
