/**
 * iptables' tables without iptables: on hosts whose `iptables` is the nf_tables variant the same rules are written straight
 * into nf_tables, in the form that iptables-nft gives them. No child process; one transaction per family and table.
 */
import { CniCode, CniError } from '../../cni/errors.ts';
import { isErrno } from '../../kernel/errno.ts';
import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import { operations } from '../diff.ts';
import { withTableLock } from '../lock.ts';
import { NftConnection } from '../nftables/connection.ts';
import { outcomeOf } from '../outcome.ts';
import type { Family, PacketFilterDriver, PlannedChange, TableChange, TableName } from '../ruleset.ts';
import { stateOf, type Table } from '../table.ts';
import { kernelTable } from './kernel-table.ts';
import { requestsFor } from './requests.ts';

export interface IptablesNftOptions {
  readonly timeoutMs: number;
  /** For rules with an operator's own words, which only iptables itself can read. */
  readonly withWords: PacketFilterDriver;
  readonly supports: (family: Family) => boolean;
}

export function createIptablesNftDriver(options: IptablesNftOptions): PacketFilterDriver {
  return {
    name: 'iptables-nft over netlink',
    supports: options.supports,
    read: (family, table) => stateOf(kernelTable(NftConnection.open(), family, table)),
    apply: (changes) => {
      if (changes.length === 0) return;
      const left = withTableLock(options.timeoutMs, () => applyAll(changes));
      // Outside of our lock: that driver takes it itself.
      if (left.length > 0) options.withWords.apply(left);
    },
  };
}

type Change = TableChange | PlannedChange;

/** Our own processes take turns; anybody else who commits between our reading and our writing sends us back to reading. */
const MOST_ATTEMPTS = 50;

/** @returns the changes of the tables for which a rule holds words that only iptables can read; nothing of those is done */
function applyAll(changes: readonly Change[]): readonly Change[] {
  using connection = NftConnection.open();
  const keys = new Set(changes.map(({ family, table }) => `${family} ${table}`));
  return [...keys].flatMap((key) => {
    const own = changes.filter(({ family, table }) => `${family} ${table}` === key);
    return applyToTable(connection, own) ? [] : own;
  });
}

/** @returns false when a rule holds words that only iptables can read */
function applyToTable(connection: NftConnection, changes: readonly Change[]): boolean {
  const [{ family, table } = { family: 'ipv4', table: 'filter' } as const] = changes;
  for (let attempt = 1; attempt <= MOST_ATTEMPTS; attempt++) {
    const generation = connection.generation();
    const requests = difference(connection, family, table, changes);
    if (requests === undefined) return false;
    try {
      connection.commit(requests, generation);
      return true;
    } catch (thrown) {
      if (!isErrno(thrown, 'ERESTART')) throw refused(family, table, thrown);
    }
  }
  throw new CniError(
    CniCode.TryAgainLater,
    `table ${table} (${family}) was changed by another program during each of ${MOST_ATTEMPTS} attempts to change it`,
    { details: 'find what rewrites the firewall all the time: nft monitor' },
  );
}

function difference(
  connection: NftConnection,
  family: Family,
  table: TableName,
  changes: readonly Change[],
): readonly NetlinkRequest[] | undefined {
  const before = kernelTable(connection, family, table);
  const after = changes.reduce<Table>(
    (now, change) => outcomeOf(now, 'plan' in change ? change.plan(stateOf(now)) : change),
    before,
  );
  return requestsFor(before, operations(before, after));
}

function refused(family: Family, table: TableName, cause: unknown): CniError {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new CniError(
    CniCode.Internal,
    `the kernel refused a change of table ${table} (${family}): ${text}`,
    { cause },
  );
}
