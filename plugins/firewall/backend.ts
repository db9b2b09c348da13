import type { Attachment } from '../../shared/packetfilter/names.ts';
import type { FirewallPlan, HostsByFamily } from './plan.ts';

/** A way to let containers through the host's firewall. */
export interface FirewallBackend {
  /** @throws CniError if this host cannot use the back end as it is */
  ready(): void;
  /** Lets the container through, completely or not at all. */
  add(plan: FirewallPlan, warn: (line: string) => void): void;
  /** Removes what belongs to this container; nothing being there is no error. */
  remove(removal: Removal, warn: (line: string) => void): void;
  /** The first thing that the container lacks; undefined if it is complete. Changes nothing. */
  missing(plan: FirewallPlan): string | undefined;
  /** Removes what belongs to containers of the network that are not valid any more. */
  collect(collection: Collection, warn: (line: string) => void): void;
}

/** What a DEL removes. */
export interface Removal extends Attachment {
  readonly addresses: HostsByFamily;
  /** The firewalld zone that the container's addresses may be in. */
  readonly zone: string;
}

/** What a GC is about. */
export interface Collection {
  readonly network: string;
  readonly valid: readonly { readonly containerID: string; readonly ifname: string }[];
  /** The firewalld zone that the addresses of the network's containers may be in. */
  readonly zone: string;
}
