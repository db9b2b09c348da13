/**
 * iptables' tables without iptables: on hosts whose `iptables` is the nf_tables variant the same rules are written straight
 * into nf_tables, in the form that iptables-nft gives them. No child process; one transaction for all tables that are applied at once.
 */
import { CniCode, CniError } from '../../cni/errors.ts';
import { isErrno } from '../../kernel/errno.ts';
import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import { operations } from '../diff.ts';
import { withNamespaceLock } from '../../kernel/locks.ts';
import { namedChains } from '../named-chains.ts';
import { NftConnection } from '../nftables/connection.ts';
import { outcomeOfAll } from '../outcome.ts';
import type { Family, PacketFilterDriver, PlannedChange, TableChange } from '../ruleset.ts';
import { stateOf } from '../table.ts';
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
    read: (family, table, looksAt) => stateOf(kernelTable(NftConnection.open(), family, table, looksAt)),
    apply: (changes) => {
      if (changes.length === 0) return;
      const left = withNamespaceLock(() => applyAll(changes));
      // Outside of our lock: that driver takes it itself.
      if (left.length > 0) options.withWords.apply(left);
    },
  };
}

type Change = TableChange | PlannedChange;

/** Our own processes take turns; anybody else who commits between our reading and our writing sends us back to reading. */
const MOST_ATTEMPTS = 50;

/**
 * All tables in one transaction.
 * @returns the changes of the tables for which a rule holds words that only iptables can read; nothing of those is done
 */
function applyAll(changes: readonly Change[]): readonly Change[] {
  const tables = [...Map.groupBy(changes, ({ family, table }) => `${family} ${table}`).values()];
  using connection = NftConnection.open();
  for (let attempt = 1; attempt <= MOST_ATTEMPTS; attempt++) {
    const generation = connection.generation();
    const steps = tables.map((own) => ({ own, requests: difference(connection, own) }));
    try {
      connection.commit(
        steps.flatMap(({ requests = [] }) => requests),
        generation,
      );
      return steps.flatMap(({ own, requests }) => (requests === undefined ? own : []));
    } catch (thrown) {
      const changed = steps.flatMap(({ own: [first], requests = [] }) =>
        first === undefined || requests.length === 0 ? [] : [tableText(first)],
      );
      if (!isErrno(thrown, 'ERESTART')) throw refused(changed, thrown);
    }
  }
  throw new CniError(
    CniCode.TryAgainLater,
    `${tables.flatMap(([first]) => (first === undefined ? [] : [tableText(first)])).join(', ')}: ` +
      `another program changed the firewall during each of ${MOST_ATTEMPTS} attempts`,
    { details: 'find what rewrites the firewall all the time: nft monitor' },
  );
}

/** @returns undefined when a rule holds words that only iptables can read */
function difference(
  connection: NftConnection,
  changes: readonly Change[],
): readonly NetlinkRequest[] | undefined {
  const [{ family, table } = { family: 'ipv4', table: 'filter' } as const] = changes;
  const before = kernelTable(connection, family, table, changes.flatMap(namedChains));
  return requestsFor(before, operations(before, outcomeOfAll(before, changes)));
}

function tableText({ family, table }: Change): string {
  return `table ${table} (${family})`;
}

function refused(tables: readonly string[], cause: unknown): CniError {
  const text = cause instanceof Error ? cause.message : String(cause);
  return new CniError(CniCode.Internal, `the kernel refused a change of ${tables.join(' and ')}: ${text}`, {
    cause,
  });
}
