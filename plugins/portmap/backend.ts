import type { Cidr } from '../../shared/net/address.ts';
import type { Attachment } from '../../shared/packetfilter/names.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { PortmapSettings } from './config.ts';
import type { Mapping, Protocol } from './mapping.ts';

/** What ADD wants and CHECK looks for, in one family. Both kinds of packet filter make the same of it. */
export interface Forwarding extends Attachment {
  readonly family: Family;
  readonly settings: PortmapSettings;
  readonly container: Cidr;
  /** At least one; all of this family. */
  readonly mappings: readonly Mapping[];
}

/** Ports that led to a container until now; connection tracking may still lead flows there. */
export interface Released {
  readonly protocol: Protocol;
  readonly first: number;
  readonly last: number;
  readonly containerAddress: string;
}

/** A kind of packet filter that forwards ports. */
export interface PortmapBackend {
  /** @throws CniError 7 for what can be refused without looking at the host, before anything of it is changed */
  prepare(forwardings: readonly Forwarding[]): void;
  /**
   * Makes one family's ports lead to the container, and nowhere else by its rules; all or nothing.
   * @throws CniError 11 when a live container holds one of the ports
   */
  put(forwarding: Forwarding, warn: (line: string) => void): void;
  /**
   * For the backend that does not serve the container: its own rules of before go, and those of dead containers that hold one
   * of the ports here. A node that was moved between backends has rules in both.
   * @throws CniError 11 when a live container holds one of the ports here
   */
  makeWay(forwarding: Forwarding, warn: (line: string) => void): Released[];
  /** Whatever there is of this container, in these families; nothing being there is fine. */
  remove(attachment: Attachment, families: readonly Family[], warn: (line: string) => void): Released[];
  /** What is missing, in words; read-only. */
  missing(forwardings: readonly Forwarding[]): string | undefined;
  /** Removes what belongs to containers of the network that are not in the list. */
  collect(
    network: string,
    valid: readonly { readonly containerID: string }[],
    warn: (line: string) => void,
  ): Released[];
}
