import type { NetlinkRequest } from '../../shared/kernel/netlink/message.ts';
import { missingFrom } from '../../shared/packetfilter/compare.ts';
import type { Desired, DesiredChange } from '../../shared/packetfilter/desired.ts';
import { changeNft, hasNftables, planNft } from '../../shared/packetfilter/nftables/change.ts';
import type { NftReader } from '../../shared/packetfilter/nftables/reader.ts';
import {
  describeMissing,
  desiredTable,
  missingRules,
  type DesiredTable,
} from '../../shared/packetfilter/restore.ts';
import type { PacketFilterDriver, PlannedChange, TableState } from '../../shared/packetfilter/ruleset.ts';
import { chooseDriver, otherDrivers } from '../../shared/packetfilter/select.ts';

/** What the host lacks, one phrase for each piece. Changes nothing. */
export function missingPieces(desired: Desired): string[] {
  return [
    ...tablesOf(desired).flatMap(({ driver, wanted }) => {
      if (!driver.supports(wanted.family)) return [];
      const state = driver.read(wanted.family, wanted.table, [...wanted.chains.keys()]);
      return describeMissing(wanted, missingRules(state, wanted));
    }),
    ...missingObjects(desired),
    ...missingSettings(desired),
  ];
}

/** The same right after {@link restorePieces}, which throws if a transaction fails. */
export function missingAfterRestoring(desired: Desired): string[] {
  return [...(desired.sharesPorts === true ? missingObjects(desired) : []), ...missingSettings(desired)];
}

function missingSettings({ settings }: Desired): string[] {
  return settings.flatMap((setting) => setting.missing());
}

/**
 * Adds what is missing: all tables of iptables in one transaction (by its programs: one for each table), nf_tables' own tables in another.
 * @param valid called under the lock that ADD and DEL take: what the attachments that are there by then need
 * @returns what it returned last
 */
export function restorePieces(desired: Desired, valid: () => Desired): Desired {
  const byDriver = Map.groupBy(
    tablesOf(desired).filter(({ driver, wanted }) => driver.supports(wanted.family)),
    ({ driver }) => driver,
  );
  for (const [driver, tables] of byDriver) {
    const current = once(() => tablesOf(valid()));
    driver.apply(tables.map(({ wanted }) => restoration(wanted, () => tableAmong(current(), wanted))));
  }
  if (desired.nftables.length > 0 && hasNftables())
    changeNft({ what: 'repair the rules of running containers' }, (reader, generation) =>
      requestsOf(desired, reader, generation).length === 0 ? [] : requestsOf(valid(), reader, generation),
    );
  const last = valid();
  for (const setting of last.settings) setting.restore();
  return last;
}

interface DrivenTable {
  readonly driver: PacketFilterDriver;
  readonly wanted: DesiredTable;
}

/** In the order in which ADD creates them. */
function tablesOf(desired: Desired): DrivenTable[] {
  const known = TABLES.get(desired) ?? computeTables(desired);
  TABLES.set(desired, known);
  return known;
}

/** One repair needs them several times. */
const TABLES = new WeakMap<Desired, DrivenTable[]>();

function computeTables({ iptables }: Desired): DrivenTable[] {
  const drivers = new Map<boolean, PacketFilterDriver>();
  const driverFor = (rawArgs: boolean): PacketFilterDriver => {
    const driver = drivers.get(rawArgs) ?? chooseDriver({ rawArgs });
    drivers.set(rawArgs, driver);
    return driver;
  };
  const groups = Map.groupBy(
    iptables.filter(isIncompleteElsewhere()),
    ({ family, table }) => `${family} ${table}`,
  );
  return [...groups.values()].flatMap((changes) => {
    const [first] = changes;
    if (first === undefined) return [];
    const rawArgs = changes.some((change) => change.rawArgs === true);
    const wanted = desiredTable(
      first.family,
      first.table,
      changes.map(({ change }) => change),
    );
    return [{ driver: driverFor(rawArgs), wanted }];
  });
}

/** Rules that are complete in the other variant of iptables stay there: the host's `iptables` was switched since ADD. */
function isIncompleteElsewhere(): (change: DesiredChange) => boolean {
  const others = otherDrivers();
  const states = new Map<string, TableState>();
  return ({ family, table, change }) =>
    !others.some((driver) => {
      if (!driver.supports(family)) return false;
      const key = `${driver.name} ${family} ${table}`;
      const state = states.get(key) ?? driver.read(family, table);
      states.set(key, state);
      return missingFrom(state, change).length === 0;
    });
}

function restoration(wanted: DesiredTable, current: () => DesiredTable | undefined): PlannedChange {
  const { family, table, chains } = wanted;
  return {
    family,
    table,
    reads: [...chains.keys()],
    plan: (state) => {
      const now = current();
      if (now === undefined) return {};
      const missing = missingRules(state, now);
      return { ensureChains: missing.chains, insertRules: missing.inserted };
    },
  };
}

function tableAmong(
  tables: readonly DrivenTable[],
  { family, table }: DesiredTable,
): DesiredTable | undefined {
  return tables.find(({ wanted }) => wanted.family === family && wanted.table === table)?.wanted;
}

/** Requests that only make room for others name nothing that is missing. */
function missingObjects(desired: Desired): string[] {
  if (desired.nftables.length === 0) return [];
  const requests = planNft((reader, generation) => requestsOf(desired, reader, generation)) ?? [];
  return requests
    .map(({ what }) => what)
    .filter((what) => /^add /.test(what))
    .map((what) => `missing: ${what}`);
}

/** The same ones as long as no program has committed: to compare and then to restore takes one plan. */
function requestsOf(desired: Desired, reader: NftReader, generation: number): readonly NetlinkRequest[] {
  const earlier = PLANNED.get(desired);
  if (earlier?.generation === generation) return earlier.requests;
  const bulk = reader.inBulk();
  const requests = desired.nftables.flatMap((part) => part(bulk));
  PLANNED.set(desired, { generation, requests });
  return requests;
}

const PLANNED = new WeakMap<Desired, { readonly generation: number; readonly requests: NetlinkRequest[] }>();

function once<T>(work: () => T): () => T {
  let done: { readonly value: T } | undefined;
  return () => (done ??= { value: work() }).value;
}
