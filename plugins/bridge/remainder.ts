import type { NetworkNamespace } from '../../shared/kernel/namespace.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import type { LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import type { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import type { Bridge } from './bridge-link.ts';
import type { Identity } from './identity.ts';
import type { Ipam } from './ipam.ts';
import { hostEndOf, isLabelled, isOurs } from './ownership.ts';

export interface Surroundings {
  readonly host: Rtnetlink;
  readonly inside: Rtnetlink;
  readonly namespace: NetworkNamespace;
  readonly bridge: Bridge;
  readonly identity: Identity;
  readonly ipam: Ipam | undefined;
}

/**
 * Whether the interface that is in ADD's way is what an earlier ADD of the same attachment made: ours by its label, or the
 * reference's (whose names are random) if it hangs on this bridge and its address is leased to this very attachment.
 * Anything else is somebody's, and stays.
 */
export function isRemainder(surroundings: Surroundings, link: LinkInfo): boolean {
  const { host, inside, namespace, bridge, identity, ipam } = surroundings;
  const end = hostEndOf(host, link, namespace);
  if (end === undefined) return false;
  if (isOurs(end, identity)) return true;
  if (isLabelled(end) || end.master !== bridge.index || ipam === undefined) return false;
  const held = addresses(inside, { index: link.index }).map(({ address }) => address);
  return held.length > 0 && ipam.holds(held);
}
