import { readFileSync } from 'node:fs';
import { isErrno } from '../../shared/kernel/errno.ts';
import { NftConnection } from '../../shared/packetfilter/nftables/connection.ts';
import { Message, request } from '../../shared/packetfilter/nftables/messages.ts';
import type { Family, TableName } from '../../shared/packetfilter/ruleset.ts';

export type TableKey = readonly [Family, TableName];

const NAMES = { ipv4: 'ip', ipv6: 'ip6' } as const;

/** Which of these tables nf_tables has in the namespace that this thread is in; iptables-nft keeps its own there under their usual names. */
export function presentNftTables(tables: readonly TableKey[]): TableKey[] {
  if (tables.length === 0) return [];
  using connection = NftConnection.open();
  try {
    const bodies = connection.getAll(
      tables.map(([family, name]) => request('get table', Message.getTable, 0, NAMES[family], [[1, name]])),
    );
    return tables.filter((_, at) => bodies[at] !== undefined);
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
