import { changeNft, hasNfTables } from '../../shared/packetfilter/nftables/change.ts';
import { deleteTable } from '../../shared/packetfilter/nftables/messages.ts';
import type { NftTable } from '../../shared/packetfilter/nftables/model.ts';
import type { NftView } from '../../shared/packetfilter/nftables/view.ts';

/**
 * Takes away the nftables tables that the plugins make once for a host, as `removeSharedChains` does for iptables: those that were not there
 * before the example and that hold nothing of any container. A container that comes in the same moment keeps its table: the kernel takes the
 * removal only if nobody has changed anything since we looked.
 * @param before `takeFootprint().rules` of the time before
 */
export function removeSharedTables(before: readonly string[]): void {
  if (!hasNfTables()) return;
  const fresh = SHARED_TABLES.filter(
    ({ table: { family, name } }) => !before.some((rule) => rule.startsWith(`nft table ${family} ${name} `)),
  );
  changeNft({ what: 'remove the tables that nobody uses any more' }, (view) =>
    fresh.filter((shared) => isIdle(view, shared)).map(({ table }) => deleteTable(table)),
  );
}

interface SharedTable {
  readonly table: NftTable;
  /** Chains that it has without any container. */
  readonly chains: readonly string[];
  /** Those of them whose rules are containers'. */
  readonly rulesOfContainers: readonly string[];
  /** Maps whose elements are containers'. */
  readonly maps: readonly string[];
}

const hostports = (family: 'ip' | 'ip6'): SharedTable => ({
  table: { family, name: 'weft_hostports' },
  chains: ['prerouting', 'output', 'postrouting'],
  rulesOfContainers: [],
  maps: ['ports', 'address_ports'],
});

const SHARED_TABLES: readonly SharedTable[] = [
  {
    table: { family: 'inet', name: 'cni_plugins_masquerade' },
    chains: ['postrouting', 'masq_checks'],
    rulesOfContainers: ['masq_checks'],
    maps: [],
  },
  hostports('ip'),
  hostports('ip6'),
];

function isIdle(view: NftView, { table, chains, rulesOfContainers, maps }: SharedTable): boolean {
  return (
    view.hasTable(table) &&
    view.chains(table).every(({ name }) => chains.includes(name)) &&
    rulesOfContainers.every((name) => view.rules({ table, name }).length === 0) &&
    maps.every((name) => view.elements({ table, name, key: [] }).length === 0)
  );
}
