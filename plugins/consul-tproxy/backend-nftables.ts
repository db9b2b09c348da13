import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { isErrno } from '../../shared/kernel/errno.ts';
import { withNamespaceLock } from '../../shared/kernel/locks.ts';
import { NftConnection } from '../../shared/packetfilter/nftables/connection.ts';
import { ruleExpressions } from '../../shared/packetfilter/nftables/encode.ts';
import {
  addChain,
  addRule,
  addTable,
  deleteTable,
  Message,
  request,
} from '../../shared/packetfilter/nftables/messages.ts';
import type { Backend } from './backend.ts';
import { differences } from './differences.ts';
import { nftPlan, TABLE } from './nft-plan.ts';
import { nftListing, readTable, tablesOf } from './nft-read.ts';
import type { TablePlan } from './plan.ts';

/** The rules in a table of our own, straight over netlink: no child process, no lock of iptables. Each change is one transaction. */
export function nftablesBackend(): Backend {
  return {
    name: 'nftables',
    apply: (tables) => locked((connection) => applyPlan(connection, tables)),
    remove: () =>
      locked((connection) => {
        if (isThere(connection)) connection.commit([deleteTable(TABLE)]);
      }),
    read: () => connected((connection) => (isThere(connection) ? tablesOf(readTable(connection)) : [])),
    present: () => connected(isThere),
    listing: () => connected((connection) => (isThere(connection) ? nftListing(readTable(connection)) : '')),
  };
}

/**
 * The old table goes in the same transaction in which the new one comes: no packet meets neither. A first ADD deletes nothing, because a
 * transaction that deletes costs the closing of the socket a grace period.
 */
function applyPlan(connection: NftConnection, tables: readonly TablePlan[]): boolean {
  const { table, chains, rules } = nftPlan(tables);
  const standing = isThere(connection);
  if (standing && differences(tables, tablesOf(readTable(connection))).length === 0) return false;
  const old = standing ? [deleteTable(table)] : [];
  try {
    connection.commit([
      ...old,
      addTable(table),
      ...chains.map(addChain),
      ...rules.map((rule) => addRule(rule.chain, { expressions: ruleExpressions(rule) }, 'last')),
    ]);
    return !standing;
  } catch (thrown) {
    throw refused(thrown);
  }
}

/** The namespace is as it was. */
function refused(thrown: unknown): unknown {
  if (!isErrno(thrown, 'EOPNOTSUPP', 'ENOENT', 'EPROTONOSUPPORT', 'EAFNOSUPPORT')) return thrown;
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new CniError(
    CniCode.Internal,
    `the kernel cannot hold the transparent-proxy rules as nftables: ${message}`,
    {
      details:
        'needed: kernel 5.2 or newer with nf_tables, nft_nat, nft_redir, nft_ct and nft_reject_inet; or set "backend": "iptables" for consul-tproxy',
      cause: thrown,
    },
  );
}

/** A kernel without nf_tables holds nothing of ours in it. */
function isThere(connection: NftConnection): boolean {
  try {
    const asked = request('get table', Message.getTable, 0, TABLE.family, [[1, TABLE.name]]);
    return connection.get(asked) !== undefined;
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
