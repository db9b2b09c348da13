import { readFileSync } from 'node:fs';
import { isErrno } from '../../shared/kernel/errno.ts';
import { NftConnection } from '../../shared/packetfilter/nftables/connection.ts';
import { Message } from '../../shared/packetfilter/nftables/messages.ts';
import { attributeOf, textOf } from '../../shared/packetfilter/nftables/tree.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';

const NAMES = { ipv4: 'ip', ipv6: 'ip6' } as const;

/** One family's nf_tables tables, in the namespace that this thread is in; iptables-nft keeps its own there under their usual names. */
export function nftTableNames(family: Family): string[] {
  using connection = NftConnection.open();
  try {
    const tables = connection.dump('list tables', Message.getTable, NAMES[family], []);
    // NFTA_TABLE_NAME (1)
    return tables.map((table) => textOf(attributeOf(table, 1) ?? Buffer.alloc(0)));
  } catch (thrown) {
    // A kernel without nf_tables.
    if (isErrno(thrown, 'EINVAL', 'EOPNOTSUPP', 'EPROTONOSUPPORT')) return [];
    throw thrown;
  }
}

/** One family's tables of iptables-legacy in that namespace that have come into being. */
export function legacyTableNames(family: Family): string[] {
  try {
    const text = readFileSync(`/proc/thread-self/net/${NAMES[family]}_tables_names`, 'latin1');
    return text.split('\n').filter((line) => line !== '');
  } catch (thrown) {
    // A kernel without legacy tables.
    if (isErrno(thrown, 'ENOENT')) return [];
    throw thrown;
  }
}
