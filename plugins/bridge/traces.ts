import type { Trace } from '../../shared/attachments/leftover.ts';
import { links } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { hasNftables } from '../../shared/packetfilter/nftables/change.ts';
import { attachmentOfAlias } from './identity.ts';
import { masqueradeTraces } from './iptables/masquerade.ts';
import { nftMasqueradeTraces } from './nftables/masquerade.ts';

/** Host ends of veth pairs, by their alias, and masquerading. */
export function traces(): Trace[] {
  return [...hostEnds(), ...masqueradeTraces(), ...(hasNftables() ? nftMasqueradeTraces() : [])];
}

/** A pair ends with either of its namespaces. One whose other end is on the host leads to none. */
function hostEnds(): Trace[] {
  using host = Rtnetlink.open();
  return links(host, { kind: 'veth' }).flatMap(({ name, alias, peerNamespaceId }) => {
    const owner = attachmentOfAlias(alias);
    if (owner === undefined) return [];
    const namespace = peerNamespaceId === undefined ? 'gone' : 'exists';
    return [{ ...owner, what: `interface ${name}`, namespace, addresses: () => [] } as const];
  });
}
