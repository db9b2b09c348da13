import { CniCode, CniError } from '../../cni/errors.ts';
import { closeAfterCall } from '../../kernel/call-scope.ts';
import { isErrno } from '../../kernel/errno.ts';
import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import { namedChains, tableAfterAll } from '../changed-table.ts';
import { type Operation, operations } from '../diff.ts';
import { encodeRule } from './encode-rule.ts';
import { KernelRule } from './chain-rules.ts';
import { NFT_FAMILIES, kernelTable } from './kernel-table.ts';
import { withNamespaceLock } from '../../kernel/locks.ts';
import { NftConnection } from '../nftables/connection.ts';
import { addChain, addRule, addTable, deleteChain, deleteRule, flushChain } from '../nftables/messages.ts';
import type { NftChain, NftHook } from '../nftables/model.ts';
import type { PacketFilterDriver, PlannedChange, TableChange, TableName } from '../ruleset.ts';
import { type Entry, type Table, stateOf } from '../table.ts';

/**
 * iptables' tables without iptables: on hosts whose `iptables` is the nf_tables variant the same rules are written straight
 * into nf_tables, in the form that iptables-nft gives them. No child process; one transaction for all tables that are applied at once.
 */

/** @param programs writes the tables that get rules with raw arguments, which only iptables can parse */
export function createIptablesNftDriver(programs: PacketFilterDriver): PacketFilterDriver {
  return {
    name: 'iptables-nft over netlink',
    supports: programs.supports,
    read: (family, table, reads) =>
      stateOf(kernelTable(closeAfterCall(NftConnection.open()), family, table, reads)),
    apply: (changes) => {
      if (changes.length === 0) return;
      const left = withNamespaceLock(() => applyAll(changes));
      // Outside of our lock: that driver takes it itself.
      if (left.length > 0) programs.apply(left);
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
  return requestsFor(before, operations(before, tableAfterAll(before, changes)));
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

/**
 * Steps as nf_tables requests. Tables and base chains that iptables-nft would make on the way are made on the way.
 * @returns undefined when a rule cannot be written without iptables
 */
export function requestsFor(before: Table, steps: readonly Operation[]): NetlinkRequest[] | undefined {
  const table = { family: NFT_FAMILIES[before.family], name: before.table };
  const chainOf = (name: string): NftChain => {
    const hook = baseHook(before.table, name);
    return { table, name, ...(hook === undefined ? {} : { hook }) };
  };
  const requests: NetlinkRequest[] = [];
  const standing = standingRules(before, steps);
  for (const step of steps) {
    const chain = chainOf(step.chain);
    const rules = standing.get(step.chain);
    const request = requestFor(before, step, chain, rules);
    if (request === undefined) return undefined;
    requests.push(...baseChain(before, chain, step), request);
  }
  return requests.length === 0 ? [] : [addTable(table), ...requests];
}

/** Rules of the chains in which a place is named by its number; nobody else needs to know all of a chain. */
function standingRules(before: Table, steps: readonly Operation[]): Map<string, Entry[]> {
  const chains = new Set(steps.flatMap((step) => (step.do === 'insertRule' ? [step.chain] : [])));
  return new Map([...chains].map((chain) => [chain, [...(before.chains.get(chain) ?? [])]]));
}

/** @param rules the chain's rules as the steps so far have left them, if a place in it is going to be named; updated */
function requestFor(
  before: Table,
  step: Operation,
  chain: NftChain,
  rules: Entry[] = [],
): NetlinkRequest | undefined {
  switch (step.do) {
    case 'createChain':
      return addChain(chain);
    case 'flushChain':
      rules.length = 0;
      return flushChain(chain);
    case 'deleteChain':
      return deleteChain(chain);
    case 'deleteRule':
      rules.splice(rules.indexOf(step.entry), 1);
      return deleteRule(chain, handleOf(step.entry));
    case 'appendRule':
    case 'insertRule': {
      const body = encodeRule(before.family, step.entry.rule);
      const next = step.do === 'insertRule' ? rules[step.index] : undefined;
      rules.splice(step.do === 'insertRule' ? step.index : rules.length, 0, step.entry);
      return body === undefined
        ? undefined
        : addRule(chain, body, next === undefined ? 'last' : { before: handleOf(next) });
    }
  }
}

/** iptables-nft makes a base chain when the first rule is put into it. */
function baseChain(before: Table, chain: NftChain, step: Operation): NetlinkRequest[] {
  const needed = chain.hook !== undefined && (step.do === 'appendRule' || step.do === 'insertRule');
  return needed && !before.chains.has(chain.name) ? [addChain(chain)] : [];
}

function handleOf(entry: Entry): bigint {
  if (entry instanceof KernelRule) return entry.handle;
  throw new Error(`the rule ${entry.text} is not in the kernel yet`);
}

/** What iptables' built-in chains are in nf_tables (iptables/nft.c builtin tables). */
function baseHook(table: TableName, chain: string): NftHook | undefined {
  const hooks = table === 'nat' ? NAT_HOOKS : FILTER_HOOKS;
  const known = hooks[chain];
  return known === undefined ? undefined : { type: table, ...known, policy: 'accept' };
}

const FILTER_HOOKS: Readonly<Record<string, Pick<NftHook, 'hook' | 'priority'>>> = {
  INPUT: { hook: 'input', priority: 0 },
  FORWARD: { hook: 'forward', priority: 0 },
  OUTPUT: { hook: 'output', priority: 0 },
};
const NAT_HOOKS: Readonly<Record<string, Pick<NftHook, 'hook' | 'priority'>>> = {
  PREROUTING: { hook: 'prerouting', priority: -100 },
  INPUT: { hook: 'input', priority: 100 },
  OUTPUT: { hook: 'output', priority: -100 },
  POSTROUTING: { hook: 'postrouting', priority: 100 },
};
