import type { Family, Match, Rule, TableName, Target } from '../../../shared/packetfilter/ruleset.ts';
import type {
  NftChain,
  NftRule,
  NftStatement,
  NftTable,
} from '../../../shared/packetfilter/nftables/model.ts';
import { HOOKS_OF, NFT_TABLE } from '../chains.ts';
import type { TablePlan } from '../plan.ts';

/**
 * The plan as one nftables table of the plugin, with the same rules:
 *
 *   table inet consul_tproxy
 *     CONSUL_PROXY_OUTPUT, …       the chains of the plan; those of IPv6 end in _V6
 *     CONSUL_NAT_OUTPUT, …         base chains that stand for iptables' built-in ones, at their priorities; each jump tests the family first
 *
 * Every rule has a counter, as in iptables.
 */
export interface NftPlan {
  readonly table: NftTable;
  readonly chains: readonly NftChain[];
  readonly rules: readonly NftRule[];
}

export const TABLE: NftTable = { family: 'inet', name: NFT_TABLE };

export function nftPlan(tables: readonly TablePlan[]): NftPlan {
  const own = tables.flatMap(({ family, chains }) => chains.map(({ chain }) => ownChain(chain, family)));
  const base = (['nat', 'filter'] as const).flatMap((table) => baseChains(table, tables));
  return {
    table: TABLE,
    chains: [...own, ...base],
    rules: tables.flatMap((plan) => rulesOf(plan)),
  };
}

/** The name of a chain of the plan in the nftables table. */
export function ownChainName(chain: string, family: Family): string {
  return family === 'ipv6' ? `${chain}${IPV6_SUFFIX}` : chain;
}

/** The base chain that stands for a built-in chain of iptables. */
export function baseChainName(table: TableName, hook: string): string {
  return `CONSUL_${table.toUpperCase()}_${hook}`;
}

const IPV6_SUFFIX = '_V6';

function ownChain(chain: string, family: Family): NftChain {
  return { table: TABLE, name: ownChainName(chain, family) };
}

function baseChains(table: TableName, tables: readonly TablePlan[]): NftChain[] {
  const used = tables
    .filter((plan) => plan.table === table)
    .flatMap(({ hooks }) => hooks.map(({ chain }) => chain));
  return HOOKS_OF[table].filter((hook) => used.includes(hook)).map((hook) => baseChain(table, hook));
}

/** Of linux/netfilter_ipv4.h: NF_IP_PRI_NAT_DST for both nat hooks, NF_IP_PRI_FILTER. */
const PRIORITY = { nat: -100, filter: 0 } as const;

function baseChain(table: TableName, hook: string): NftChain {
  const name = hook.toLowerCase() as 'prerouting' | 'input' | 'output';
  return {
    table: TABLE,
    name: baseChainName(table, hook),
    hook: { type: table, hook: name, priority: PRIORITY[table], policy: 'accept' },
  };
}

function rulesOf({ family, table, chains, hooks }: TablePlan): NftRule[] {
  const named = (rule: Rule): Rule =>
    rule.target.kind === 'jump'
      ? { ...rule, target: { kind: 'jump', chain: ownChainName(rule.target.chain, family) } }
      : rule;
  return [
    ...chains.flatMap(({ chain, rules }) =>
      rules.map((rule) => ({ chain: ownChain(chain, family), statements: statementsOf(named(rule)) })),
    ),
    ...hooks.flatMap(({ chain, rules }) =>
      rules.map((rule) => ({
        chain: baseChain(table, chain),
        statements: statementsOf(named(rule), family),
      })),
    ),
  ];
}

/**
 * One rule of the plan as nft statements.
 * @param guard the family to test first, in a chain that gets packets of both
 */
export function statementsOf(rule: Rule, guard?: Family): NftStatement[] {
  return [
    ...(guard === undefined ? [] : [{ kind: 'nfproto', family: guard } as const]),
    ...(rule.inInterface === undefined ? [] : [interfaceIs('iifname', rule.inInterface.value)]),
    ...(rule.outInterface === undefined ? [] : [interfaceIs('oifname', rule.outInterface.value)]),
    ...(rule.destination === undefined ? [] : [addressIs(rule.destination.value)]),
    ...(rule.protocol === undefined ? [] : [{ kind: 'l4proto', protocol: rule.protocol } as const]),
    ...(rule.matches ?? []).map(matchStatement),
    { kind: 'counter' },
    targetStatement(rule.target),
  ];
}

function interfaceIs(side: 'iifname' | 'oifname', name: string): NftStatement {
  return { kind: 'interface', side, name };
}

function addressIs(cidr: string): NftStatement {
  return { kind: 'address', side: 'daddr', cidr };
}

const STATES = { NEW: 'new', RELATED: 'related', ESTABLISHED: 'established', INVALID: 'invalid' } as const;

function matchStatement(match: Match): NftStatement {
  switch (match.kind) {
    case 'port':
      return { kind: 'dport', ...match.destinationPort };
    case 'owner':
      return { kind: 'skuid', ...match.uid };
    case 'conntrack':
      return { kind: 'ct state', states: match.states.map((state) => STATES[state]) };
    default:
      throw new Error(`unsupported match in plan: ${match.kind}`);
  }
}

function targetStatement(target: Target): NftStatement {
  switch (target.kind) {
    case 'jump':
      return { kind: 'jump', chain: target.chain };
    case 'return':
      return { kind: 'return' };
    case 'redirect':
      return { kind: 'redirect', port: target.port };
    case 'dnat':
      return dnatStatement(target.to);
    case 'reject':
      return { kind: 'reject', with: target.with === 'tcp-reset' ? 'tcp reset' : 'icmpx port-unreachable' };
    default:
      throw new Error(`unsupported target in plan: ${target.kind}`);
  }
}

/** `10.0.0.1`, `10.0.0.1:8600`, `fd00::1`, `[fd00::1]:8600` */
function dnatStatement(to: string): NftStatement {
  const isIpv6 = to.split(':').length > 2;
  const parts = isIpv6 ? /^\[?([^[\]]+)\]?(?::(\d+))?$/.exec(to) : /^([^:]+)(?::(\d+))?$/.exec(to);
  const port = Number(parts?.[2] ?? 0);
  return {
    kind: 'dnat',
    family: isIpv6 ? 'ip6' : 'ip',
    address: parts?.[1] ?? to,
    ...(port === 0 ? {} : { port: { first: port, last: port } }),
  };
}
