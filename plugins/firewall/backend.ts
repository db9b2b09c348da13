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
  /**
   * The first thing that the container lacks; undefined if it is complete. Changes nothing.
   * @param changed gets what the container lacks only because the network's configuration changed since its ADD
   */
  missing(plan: FirewallPlan, changed: (change: ConfigurationChange) => void): string | undefined;
  /** Removes what belongs to containers of the network that are not valid any more. */
  collect(collection: Collection, warn: (line: string) => void): void;
}

/** A key whose value today is not the one that the container was added with. */
export interface ConfigurationChange {
  readonly key: 'iptablesAdminChainName' | 'ingressPolicy' | 'firewalldZone';
  /** What is there instead of what the key asks for now: a sentence. */
  readonly found: string;
}

/** What a DEL removes. */
export interface Removal extends Attachment {
  /** Addresses that no other container has now: rules and sources name nothing else. */
  readonly addresses: HostsByFamily;
  /** Every address that the container is known to have had, for objects that carry the container's name. */
  readonly known: HostsByFamily;
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
