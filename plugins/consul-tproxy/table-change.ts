import { isUnmanaged, jumpOf } from '../../shared/packetfilter/compare.ts';
import { ruleText } from '../../shared/packetfilter/iptables/render.ts';
import type {
  Family,
  PlannedChange,
  Rule,
  TableName,
  TableState,
} from '../../shared/packetfilter/ruleset.ts';
import { CHAINS_OF, HOOKS_OF } from './names.ts';
import type { TablePlan } from './plan.ts';

type Change = ReturnType<PlannedChange['plan']>;

/**
 * Makes one table hold exactly this plan, on top of whatever stands there. Jumps of ours that are not as wanted, in number or order
 * (an earlier ADD, a consul-cni that was run twice), are all replaced: DNS over TCP must meet its jump before the proxy's.
 * @param seen told of the table as it was read
 */
export function replaceTable(
  plan: TablePlan,
  seen: (state: TableState) => void = () => undefined,
): PlannedChange {
  const { family, table } = plan;
  const wanted = plan.chains.map(({ chain }) => chain);
  const unwanted = CHAINS_OF[table].filter((chain) => !wanted.includes(chain));
  return {
    family,
    table,
    reads: chainsLookedAt(table),
    plan: (state) => {
      seen(state);
      const hooks = HOOKS_OF[table].map((hook) => hookChange(state, table, hook, rulesAt(plan, hook)));
      return {
        setChains: plan.chains,
        removeRules: hooks.flatMap(({ removeRules = [] }) => removeRules),
        setJumps: hooks.flatMap(({ setJumps = [] }) => setJumps),
        ensureRules: hooks.flatMap(({ ensureRules = [] }) => ensureRules),
        deleteChains: unwanted,
      };
    },
  };
}

/** All that concerns us in a table. */
export function chainsLookedAt(table: TableName): readonly string[] {
  return [...CHAINS_OF[table], ...HOOKS_OF[table]];
}

/** Makes one table hold nothing of ours. */
export function emptyTable(family: Family, table: TableName): PlannedChange {
  return replaceTable({ family, table, chains: [], hooks: [] });
}

/** Whether a chain of ours is there. */
export function holdsOurs(state: Pick<TableState, 'table' | 'chains'>): boolean {
  return CHAINS_OF[state.table].some((chain) => state.chains.has(chain));
}

function rulesAt(plan: TablePlan, hook: string): readonly Rule[] {
  return plan.hooks.find(({ chain }) => chain === hook)?.rules ?? [];
}

/**
 * nat: at the end, where consul-cni puts them. filter: at the head, so that no rule before them lets through what shall be refused.
 */
function hookChange(state: TableState, table: TableName, hook: string, rules: readonly Rule[]): Change {
  const own: readonly string[] = CHAINS_OF[table];
  if (standsAs(state, own, hook, rules)) return {};
  const isOurs = (rule: Rule): boolean => own.includes(jumpOf(rule) ?? '');
  const atTheEnd = table === 'nat' ? rules : [];
  const atTheHead = table === 'filter' ? [...rules].reverse() : [];
  return {
    removeRules: [{ chain: hook, match: isOurs }],
    // In the order wanted; then for the other chains, to find jumps with conditions that we cannot read.
    setJumps: [...new Set([...atTheEnd.map((rule) => jumpOf(rule) ?? ''), ...own])].map((to) => ({
      chain: hook,
      to,
      rules: atTheEnd.filter((rule) => jumpOf(rule) === to),
    })),
    ensureRules: atTheHead.map((rule) => ({ chain: hook, rule, at: 'first' })),
  };
}

function standsAs(state: TableState, own: readonly string[], hook: string, rules: readonly Rule[]): boolean {
  const strange = own.some((to) => state.jumps(hook, to).some(isUnmanaged));
  const standing = (state.chains.get(hook) ?? []).filter((rule) => own.includes(jumpOf(rule) ?? ''));
  if (strange) return false;
  if (standing.length !== rules.length) return false;
  return standing.every((rule, at) => {
    const wanted = rules[at];
    return wanted !== undefined && !isUnmanaged(rule) && ruleText(rule) === ruleText(wanted);
  });
}
