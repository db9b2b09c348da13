import type { NetlinkRequest } from '../../shared/kernel/netlink/message.ts';
import type { NftTable } from '../../shared/packetfilter/nftables/model.ts';
import type { NftView } from '../../shared/packetfilter/nftables/view.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';

/**
 * The rules that the reference's nftables backend made for a container (table `cni_hostport`, found by a comment that is the
 * bare container id). They are looked for only on a host where that table exists.
 */
export function referenceRemoval(view: NftView, family: Family, containerId: string): NetlinkRequest[] {
  const table: NftTable = { family: family === 'ipv4' ? 'ip' : 'ip6', name: 'cni_hostport' };
  if (!view.hasTable(table)) return [];
  return CHAINS.flatMap((name) =>
    view
      .rules({ table, name })
      .filter(({ comment }) => comment === containerId)
      .map((rule) => rule.deletion()),
  );
}

const CHAINS = ['hostports', 'hostip_hostports', 'masquerading'];
