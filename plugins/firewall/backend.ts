import type { FirewallSettings } from './config.ts';
import type { Departing, Subject } from './plan.ts';

/** A kind of firewall that containers are let through. */
export interface FirewallBackend {
  /** @throws CniError when containers could not be let through on this host as it is */
  ready(): void;
  /** All or nothing of this container. */
  allow(settings: FirewallSettings, subject: Subject, warn: (line: string) => void): void;
  /** Takes away whatever there is of this container; nothing being there is fine. */
  forget(departing: Departing, warn: (line: string) => void): void;
  /** What is missing, in words; read-only. */
  missing(settings: FirewallSettings, subject: Subject): string | undefined;
  /** Takes away what belongs to containers of the network that are not in the list. */
  collect(garbage: Garbage, warn: (line: string) => void): void;
}

/** What a GC is about. */
export interface Garbage {
  readonly network: string;
  readonly valid: readonly { readonly containerID: string; readonly ifname: string }[];
  /** The zone of firewalld that the network's containers are put into. */
  readonly zone: string;
}
