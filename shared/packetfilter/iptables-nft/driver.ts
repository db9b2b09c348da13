import { CniCode, CniError } from '../../cni/errors.ts';
import { closeAfterCall } from '../../kernel/call-scope.ts';
import { isErrno } from '../../kernel/errno.ts';
import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import { namedChains, tableAfterAll } from '../changed-table.ts';
import { type Operation, operations } from '../diff.ts';
import { compatOf, encodeRule } from './encode-rule.ts';
import { KernelRule } from './chain-rules.ts';
import { listedExpressions } from './listed-form.ts';
import { NFT_FAMILIES, kernelTable } from './kernel-table.ts';
import { withNamespaceLock } from '../../kernel/locks.ts';
import { NftConnection } from '../nftables/connection.ts';
import {
  addChain,
  addRule,
  addTable,
  deleteChain,
  deleteRule,
  flushChain,
  type RuleBody,
} from '../nftables/messages.ts';
import type { NftChain, NftHook } from '../nftables/model.ts';
import type { Family, PacketFilterDriver, PlannedChange, Rule, TableChange, TableName } from '../ruleset.ts';
import { type Entry, type Table, stateOf } from '../table.ts';

/**
 * iptables' tables over netlink: where the host's `iptables` is the nf_tables variant, rules are written into nf_tables in the format of
 * iptables-nft. No child process; all tables of one `apply` change in one transaction.
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
      // That driver takes the lock itself.
      if (left.length > 0) programs.apply(left);
    },
  };
}

type Change = TableChange | PlannedChange;

/** Calls of this suite take turns. If another program commits between our reading and our commit, the tables are read again. */
const MOST_ATTEMPTS = 50;

/**
 * All tables in one transaction.
 * @returns the changes of tables that get a rule with raw arguments, which only iptables can parse; they are not applied
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
    { details: 'find the program that changes it continuously: nft monitor' },
  );
}

/** @returns undefined if a rule has raw arguments */
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
 * Steps as nf_tables requests, with the tables and base chains that iptables-nft would create implicitly.
 * @returns undefined if a rule has raw arguments
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

/** Rules of the chains in which a rule is inserted by its number; other chains need not be read completely. */
function standingRules(before: Table, steps: readonly Operation[]): Map<string, Entry[]> {
  const chains = new Set(steps.flatMap((step) => (step.do === 'insertRule' ? [step.chain] : [])));
  return new Map([...chains].map((chain) => [chain, [...(before.chains.get(chain) ?? [])]]));
}

/** @param rules the chain's rules after the steps so far, if a step inserts into it; updated */
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
      const body = bodyOf(before.family, step.entry.rule);
      const next = step.do === 'insertRule' ? rules[step.index] : undefined;
      rules.splice(step.do === 'insertRule' ? step.index : rules.length, 0, step.entry);
      return body === undefined
        ? undefined
        : addRule(chain, body, next === undefined ? 'last' : { before: handleOf(next) });
    }
  }
}

/** A rule that the kernel had is written as it listed it: repair restores a thousand rules in two thirds of the time, byte for byte. */
function bodyOf(family: Family, rule: Rule): RuleBody | undefined {
  const expressions = listedExpressions(family, rule);
  return expressions === undefined ? encodeRule(family, rule) : { expressions, compat: compatOf(rule) };
}

/** iptables-nft creates a base chain with its first rule. */
function baseChain(before: Table, chain: NftChain, step: Operation): NetlinkRequest[] {
  const needed = chain.hook !== undefined && (step.do === 'appendRule' || step.do === 'insertRule');
  return needed && !before.chains.has(chain.name) ? [addChain(chain)] : [];
}

function handleOf(entry: Entry): bigint {
  if (entry instanceof KernelRule) return entry.handle;
  throw new Error(`rule has no handle because it is not in the kernel yet: ${entry.text}`);
}

/** The base chains that stand for iptables' built-in chains (iptables/nft.c, builtin tables). */
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
