import { toCniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import { chooseBackend } from '../../shared/packetfilter/choose-backend.ts';
import {
  masqueradeChange,
  masqueradeGarbage,
  masqueradeRemoval,
  missingMasquerade,
} from './iptables/masquerade.ts';
import {
  missingNftMasquerade,
  putNftMasquerade,
  removeNftMasquerade,
  removeNftMasqueradeGarbage,
} from './nftables/masquerade.ts';
import { hasNftables } from '../../shared/packetfilter/nftables/change.ts';
import { applyWherePossible, chooseDriver } from '../../shared/packetfilter/select.ts';
import { runAll } from '../../shared/cni/undo.ts';
import type { BridgeConfig } from './config.ts';

type Call = Invocation<BridgeConfig>;

/** Which addresses are masqueraded: this interface's, and those of the container's other interfaces, whose rules stay. */
export interface Masqueraded {
  readonly addresses: readonly string[];
  readonly keep: readonly string[];
}

/** Into the packet filter that the network names, else the node; with neither, as in the reference, iptables where it is. */
export function putMasquerade(call: Call, { addresses, keep }: Masqueraded): void {
  if (chooseBackend(call.config.ipMasqBackend) === 'nftables') putNftMasquerade(call, addresses);
  else chooseDriver().apply(masqueradeChange({ ...call, addresses, keep }));
}

/** With both backends: an earlier configuration may have named the other one, and so may the reference have done. */
export function removeMasquerade(call: Invocation<unknown>, keep: readonly string[]): void {
  runAll(
    [
      () => applyWherePossible(chooseDriver(), masqueradeRemoval({ ...call, keep }), call.warn),
      () => removeNftMasquerade(call),
    ],
    call.warn,
  );
}

/**
 * For CHECK: either backend will do, because the node's default may have changed since ADD. What cannot be looked at (no
 * program, a lock that is held) is told, but proves nothing.
 * @returns what is missing, in words, or undefined
 */
export function missingMasqueradeOf(call: Call, { addresses, keep }: Masqueraded): string | undefined {
  const driver = chooseDriver();
  const looks = [
    () => missingMasquerade({ ...call, addresses, keep }, (...table) => driver.read(...table)),
    () => (hasNftables() ? missingNftMasquerade(call, addresses) : 'this kernel has no nf_tables'),
  ];
  if (call.config.ipMasqBackend === 'nftables') looks.reverse();
  let missing: string | undefined;
  for (const look of looks) {
    try {
      const found = look();
      if (found === undefined) return undefined;
      missing ??= found;
    } catch (thrown) {
      call.warn(`cannot tell whether masquerading is complete: ${toCniError(thrown).message}`);
    }
  }
  return missing;
}

export function removeMasqueradeGarbage(call: Invocation<unknown>): void {
  const { network, validAttachments } = call;
  if (validAttachments === undefined) return;
  runAll(
    [
      () => applyWherePossible(chooseDriver(), masqueradeGarbage(network, validAttachments), call.warn),
      () => removeNftMasqueradeGarbage(network, validAttachments),
    ],
    call.warn,
  );
}
