import type { NetlinkRequest } from '../../kernel/netlink/message.ts';
import type { Operation } from '../diff.ts';
import { addChain, addRule, addTable, deleteChain, deleteRule, flushChain } from '../nftables/messages.ts';
import type { NftChain, NftHook } from '../nftables/model.ts';
import type { TableName } from '../ruleset.ts';
import type { Entry } from '../rules.ts';
import type { Table } from '../table.ts';
import { encodeRule } from './encode-rule.ts';
import { KernelRule } from './kernel-rule.ts';
import { NFT_FAMILIES } from './kernel-table.ts';

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
