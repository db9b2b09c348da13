import { CniCode, CniError } from '../../../shared/cni/errors.ts';
import { isErrno } from '../../../shared/kernel/errno.ts';
import { withNamespaceLock } from '../../../shared/kernel/locks.ts';
import { NftConnection } from '../../../shared/packetfilter/nftables/connection.ts';
import { ruleExpressions } from '../../../shared/packetfilter/nftables/encode.ts';
import {
  addChain,
  addRule,
  addTable,
  deleteTable,
  Message,
  request,
} from '../../../shared/packetfilter/nftables/messages.ts';
import type { Backend } from '../backend.ts';
import { differences } from '../differences.ts';
import type { TablePlan } from '../plan.ts';
import { nftPlan, TABLE } from './plan.ts';
import { nftListing, readTable, tablesOf } from './read.ts';

/** The rules in a table of the plugin's own, over netlink: no child process, no lock of iptables. Each change is one transaction. */
export function nftablesBackend(): Backend {
  return {
    name: 'nftables',
    add: (tables) => locked((connection) => addPlan(connection, tables)),
    remove: () =>
      locked((connection) => {
        if (tableExists(connection)) connection.commit([deleteTable(TABLE)]);
      }),
    read: () => connected((connection) => (tableExists(connection) ? tablesOf(readTable(connection)) : [])),
    present: () => connected(tableExists),
    listing: () =>
      connected((connection) => (tableExists(connection) ? nftListing(readTable(connection)) : '')),
  };
}

/**
 * An old table is deleted in the transaction that adds the new one, so every packet meets one of them. A first ADD deletes nothing, because
 * closing the socket after a deletion waits for an RCU grace period.
 */
function addPlan(connection: NftConnection, tables: readonly TablePlan[]): boolean {
  const { table, chains, rules } = nftPlan(tables);
  const exists = tableExists(connection);
  if (exists && differences(tables, tablesOf(readTable(connection))).length === 0) return false;
  const old = exists ? [deleteTable(table)] : [];
  try {
    connection.commit([
      ...old,
      addTable(table),
      ...chains.map(addChain),
      ...rules.map((rule) => addRule(rule.chain, { expressions: ruleExpressions(rule) }, 'last')),
    ]);
    return !exists;
  } catch (thrown) {
    throw asUnsupported(thrown);
  }
}

/** Errors of a kernel that lacks a part of nf_tables, with the remedy; others unchanged. */
function asUnsupported(thrown: unknown): unknown {
  if (!isErrno(thrown, 'EOPNOTSUPP', 'ENOENT', 'EPROTONOSUPPORT', 'EAFNOSUPPORT')) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new CniError(
    CniCode.Internal,
    `the kernel refused the transparent-proxy rules in nftables: ${message}`,
    {
      details:
        'needed: kernel 5.2 or newer with nf_tables, nft_nat, nft_redir, nft_ct and nft_reject_inet; or set "backend": "iptables" for consul-tproxy',
      cause: thrown,
    },
  );
}

/** False on a kernel without nf_tables. */
function tableExists(connection: NftConnection): boolean {
  try {
    const get = request('get table', Message.getTable, 0, TABLE.family, [[1, TABLE.name]]);
    return connection.get(get) !== undefined;
  } catch (thrown) {
    if (isErrno(thrown, 'EINVAL', 'EOPNOTSUPP', 'EPROTONOSUPPORT')) return false;
    throw thrown;
  }
}

function locked<T>(work: (connection: NftConnection) => T): T {
  return withNamespaceLock(() => connected(work));
}

function connected<T>(work: (connection: NftConnection) => T): T {
  using connection = NftConnection.open();
  return work(connection);
}
