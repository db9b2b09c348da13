import { mayHaveChangedSinceAdd } from '../../shared/attachments/node-config-of-add.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import { runAll } from '../../shared/cni/undo.ts';
import { backendWithRules } from '../../shared/packetfilter/desired.ts';
import { chooseBackend, type Backend } from '../../shared/packetfilter/select.ts';
import type { BridgeConfig } from './config.ts';
import type { Attachment } from './identity.ts';
import { iptables } from './iptables/masquerade.ts';
import { nftables, TABLE } from './nftables/masquerade.ts';
import { REFERENCE_TABLE } from './nftables/reference.ts';
import type { Masqueraded } from './plan.ts';

/** Masquerading of what containers send to destinations outside their own subnets. */
export interface MasqueradeBackend {
  /** @throws CniError 50 when this host cannot have such rules */
  ready(): void;
  add(attachment: Attachment, addresses: Masqueraded, warn: (line: string) => void): void;
  /** @param keep addresses of the container's other interfaces, whose rules stay */
  remove(attachment: Attachment, keep: readonly string[], warn: (line: string) => void): void;
  /** What the rules lack; undefined when they are complete. */
  missing(attachment: Attachment, addresses: Masqueraded): string | undefined;
  /** Whether any rule of the attachment exists: then ADD set masquerading up. */
  isPresent(attachment: Attachment): boolean;
  /** Removes the rules of the network's attachments that are not in `valid`. */
  collect(network: string, valid: ValidAttachments, warn: (line: string) => void): void;
}

export type ValidAttachments = NonNullable<Invocation<unknown>['validAttachments']>;

type Call = Invocation<BridgeConfig>;

/** @throws CniError 50 when ADD could not set masquerading up */
export function masqueradeReady({ config }: Call): void {
  BACKENDS[chooseBackend(config.ipMasqBackend)].ready();
}

/** With the back end of the network's configuration, else of the node's, else as in the reference. */
export function addMasquerade(call: Call, addresses: Masqueraded): void {
  BACKENDS[chooseBackend(call.config.ipMasqBackend)].add(call, addresses, call.warn);
}

/** With every back end: an earlier configuration, or the reference, may have used another one. */
export function removeMasquerade(call: Invocation<unknown>, keep: readonly string[]): void {
  runAll(
    ALL.map((backend) => () => backend.remove(call, keep, call.warn)),
    call.warn,
  );
}

/**
 * For CHECK: the rules may be complete in either back end, because the node's default may have changed since ADD. If a back end cannot
 * be read (program missing, lock held), that is a warning and proves nothing.
 * @returns what is missing; undefined when the rules are complete
 */
export function missingMasquerade(call: Call, addresses: Masqueraded): string | undefined {
  const order = call.config.ipMasqBackend === 'nftables' ? ALL.toReversed() : ALL;
  let missing: string | undefined;
  for (const backend of order) {
    try {
      const found = backend.missing(call, addresses);
      if (found === undefined) return undefined;
      missing ??= found;
    } catch (thrown) {
      call.warn(`cannot check masquerading: ${toCniError(thrown).message}`);
    }
  }
  return missing;
}

/**
 * For repair: the back end that has the rules, else the one that ADD would use.
 * @param chosen that one @param addresses of the interface
 */
export function masqueradeBackendOf(call: Call, chosen: Backend, addresses: readonly string[]): Backend {
  if (call.config.ipMasqBackend !== undefined) return chosen;
  return backendWithRules(
    chosen,
    ['iptables', 'nftables'],
    [TABLE, REFERENCE_TABLE],
    () => mayHaveChangedSinceAdd(call),
    (name) => BACKENDS[name].missing(call, { addresses, keep: [] }),
  );
}

/** Whether any part of the rules exists in any back end; false when that cannot be read. */
export function hasMasquerade(call: Invocation<unknown>): boolean {
  return ALL.some((backend) => {
    try {
      return backend.isPresent(call);
    } catch {
      return false;
    }
  });
}

export function collectMasquerade(call: Invocation<unknown>, valid: ValidAttachments): void {
  runAll(
    ALL.map((backend) => () => backend.collect(call.network, valid, call.warn)),
    call.warn,
  );
}

const BACKENDS: Readonly<Record<Backend, MasqueradeBackend>> = { iptables, nftables };
const ALL = [iptables, nftables];
