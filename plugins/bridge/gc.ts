import type { Invocation } from '../../shared/cni/plugin.ts';
import { runAll } from '../../shared/cni/undo.ts';
import { deleteLink, linkByName, links } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { macSpoofGarbage, removeMacSpoofCheck } from './nftables/macspoof.ts';
import { hasNftables } from '../../shared/packetfilter/nftables/change.ts';
import type { BridgeConfig } from './config.ts';
import { attachmentOfAlias, type Attachment } from './identity.ts';
import { ipamOf } from './ipam.ts';
import { removeMasqueradeGarbage } from './masquerade.ts';

type Call = Invocation<Partial<BridgeConfig>>;
type Valid = readonly { readonly containerID: string; readonly ifname: string }[];

/**
 * Removes what attachments left behind that the runtime does not know any more: pairs that carry this network's label,
 * masquerading, spoofing checks of interfaces that are gone, reservations. Interfaces without our label are not touched: who
 * made them cannot be told.
 */
export function gc(call: Call): void {
  const valid = call.validAttachments;
  if (valid === undefined) return;
  runAll(
    [
      () => removePairs(call, valid),
      () => removeMasqueradeGarbage(call),
      () => removeSpoofChecks(),
      () => ipamOf(call)?.gc(),
    ],
    call.warn,
  );
}

function removePairs({ network, warn }: Call, valid: Valid): void {
  using host = Rtnetlink.open();
  const stale = links(host, { kind: 'veth' }).filter(({ alias }) => {
    const attachment = attachmentOfAlias(alias);
    return attachment?.network === network && !isValid(attachment, valid);
  });
  runAll(
    stale.map(
      ({ index }) =>
        () =>
          void deleteLink(host, index),
    ),
    warn,
  );
}

function isValid({ containerId, ifname }: Attachment, valid: Valid): boolean {
  return valid.some((one) => one.containerID === containerId && one.ifname === ifname);
}

function removeSpoofChecks(): void {
  if (!hasNftables()) return;
  using host = Rtnetlink.open();
  for (const check of macSpoofGarbage((name) => linkByName(host, name) !== undefined))
    removeMacSpoofCheck(check);
}
