import type { Cidr } from '../../shared/net/address.ts';
import type { Attachment } from '../../shared/packetfilter/names.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { PortmapSettings } from './config.ts';
import type { HostPorts, PortMapping } from './mapping.ts';

/** The desired state of one container in one family; each back end turns it into its own rules. */
export interface PortForwarding extends Attachment {
  readonly family: Family;
  readonly settings: PortmapSettings;
  /** The container's address, with the prefix length of its subnet. */
  readonly container: Cidr;
  /** At least one; all of them apply to this family. */
  readonly mappings: readonly PortMapping[];
}

/** Host ports as rules in the kernel forward them, and the address they forward to. */
export interface ForwardedPorts extends HostPorts {
  readonly containerAddress: string;
}

/** Keys of the configuration whose values ADD writes into rules. */
export type ChangedKey =
  'backend' | 'snat' | 'masqAll' | 'markMasqBit' | 'externalSetMarkChain' | 'conditionsV4' | 'conditionsV6';
export type ChangedKeys = Pick<Set<ChangedKey>, 'add'>;

type Warn = (line: string) => void;

/** A packet filter that can forward ports. */
export interface PortmapBackend {
  /** @throws CniError 7 for settings that this back end cannot apply, before anything is changed */
  prepare(forwardings: readonly PortForwarding[]): void;
  /**
   * Makes the rules of one family match; all or nothing. Rules of an earlier ADD of the container are replaced.
   * @throws CniError 11 when one of the ports is in use by a running container
   */
  add(forwarding: PortForwarding, warn: Warn): void;
  /**
   * Looks at the tables that `add` does not write: those of a back end that is not chosen, and of the other variant of iptables. They have
   * rules from before the node was moved. Removes this container's rules of an earlier ADD, and those of dead containers that forward one
   * of its ports.
   * @returns the ports whose rules were removed
   * @throws CniError 11 when one of the ports is in use by a running container
   */
  removeConflicts(
    forwarding: PortForwarding,
    options: { readonly isChosen: boolean; readonly warn: Warn },
  ): ForwardedPorts[];
  /** Removes all rules of a container in these families. @returns the ports whose rules were removed */
  remove(attachment: Attachment, families: readonly Family[], warn: Warn): ForwardedPorts[];
  /**
   * For CHECK: the first rule that is missing, as a phrase for the error; undefined when the ports work as they were set up. Changes nothing.
   * @param changed gets the keys whose values were different when the container was added
   */
  missing(forwardings: readonly PortForwarding[], changed: ChangedKeys): string | undefined;
  /** Removes the rules of the network's containers that are not in the list. @returns the ports whose rules were removed */
  collect(network: string, valid: readonly { readonly containerID: string }[], warn: Warn): ForwardedPorts[];
}
