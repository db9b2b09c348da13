/** Chains that see forwarded packets, and a quick test of whether they could drop any. Nothing is followed here; verdict/ does that. */
import { decodeExpressions, type DecodedExpression } from './nftables/decode-expressions.ts';
import { REGISTER_VERDICT, VerdictCode } from './nftables/expressions.ts';
import type { NftTable } from './nftables/model.ts';
import type { NftReader, StandingBaseChain } from './nftables/reader.ts';
import { isUnmanaged } from './compare.ts';
import type { Family, Rule, TableState, UnmanagedRule } from './ruleset.ts';
import { chooseDriver } from './select.ts';
import { legacyTablesInUse } from './tables-in-use.ts';

/** Base chains of nf_tables at the hook forward, iptables-nft's included, without the tables of this suite. */
export function nftForwardChains(reader: NftReader): StandingBaseChain[] {
  const tables = reader.tables().filter(({ name }) => !name.startsWith('weft_'));
  const known = tables.map((table) => ({ table, chains: wellKnownChains(reader, table) }));
  const others = known.filter(({ chains }) => chains === undefined).map(({ table }) => table);
  const listed = [...new Set(others.map(({ family }) => family))].flatMap((family) =>
    reader.baseChains(family),
  );
  return [
    ...known.flatMap(({ chains }) => chains ?? []),
    ...listed.filter((chain) => others.some(isTableOf(chain))),
  ].filter(({ hook }) => hook === NF_INET_FORWARD);
}

/** False only when no packet can be dropped in the chain: policy accept, and no rule that drops or leads to another program's chain. */
export function nftChainMayDrop(reader: NftReader, chain: StandingBaseChain): boolean {
  if (chain.policy === 'drop') return true;
  return reader
    .rules({ table: chain.table, name: chain.name })
    .some(({ expressions }) => decodeExpressions(expressions).some(expressionMayDrop));
}

/**
 * Table filter of iptables-legacy; undefined where it is not in use.
 * @param options.complete also the text of rules that only iptables-legacy-save can print: starts it, if it is installed
 */
export function legacyFilter(
  family: Family,
  options: { readonly complete?: boolean } = {},
): TableState | undefined {
  if (legacyTablesInUse(family)?.includes('filter') !== true) return undefined;
  return chooseDriver({ variant: 'legacy', rawArgs: options.complete === true }).read(family, 'filter');
}

/** As {@link nftChainMayDrop}, for chain FORWARD of iptables-legacy. */
export function legacyForwardMayDrop(filter: TableState): boolean {
  return filter.policies.get('FORWARD') === 'drop' || (filter.chains.get('FORWARD') ?? []).some(ruleMayDrop);
}

const NF_INET_FORWARD = 2;

/** Chains of the reference suite's names: the firewall plugin fills them, and they are no reason for a warning. */
function isCniChain(chain: string | undefined): boolean {
  return chain?.startsWith('CNI-') === true;
}

function expressionMayDrop(expression: DecodedExpression): boolean {
  switch (expression.kind) {
    case 'verdict':
      return (
        expression.code === VerdictCode.drop ||
        (expression.chain !== undefined && !isCniChain(expression.chain))
      );
    case 'lookup':
      return expression.destination === REGISTER_VERDICT;
    case 'reject':
      return true;
    case 'target':
      return expression.name === 'REJECT' || expression.name === 'NFQUEUE';
    case 'other':
      return expression.name === 'queue';
    default:
      return false;
  }
}

function ruleMayDrop(rule: Rule | UnmanagedRule): boolean {
  if (isUnmanaged(rule)) return true;
  const { target } = rule;
  if (target.kind === 'jump') return !isCniChain(target.chain);
  return target.kind === 'drop' || target.kind === 'reject';
}

/**
 * The kernel lists base chains only among all chains of a family, and there may be one for each container. So in tables whose chains have
 * known names these are asked for by name.
 * @returns undefined for any other table
 */
function wellKnownChains(reader: NftReader, table: NftTable): StandingBaseChain[] | undefined {
  const key = `${table.family} ${table.name}`;
  if (NOTHING_AT_FORWARD.has(key)) return [];
  const chains = reader.baseChainsNamed(table, KNOWN_CHAINS.get(key) ?? []);
  return chains.length === 0 ? undefined : chains;
}

const IPTABLES_CHAINS = ['FORWARD', 'INPUT', 'OUTPUT', 'PREROUTING', 'POSTROUTING'];
/** Base chains of iptables-nft's tables, of which only those exist that were ever used, and firewalld's. */
const KNOWN_CHAINS: ReadonlyMap<string, readonly string[]> = new Map([
  ...['ip', 'ip6'].flatMap((family) =>
    ['filter', 'mangle', 'security'].map((name) => [`${family} ${name}`, IPTABLES_CHAINS] as const),
  ),
  ['inet firewalld', ['filter_FORWARD']],
]);

/** Tables of address translation, which hold a chain for each container. */
const NOTHING_AT_FORWARD: ReadonlySet<string> = new Set([
  'ip nat',
  'ip6 nat',
  'ip raw',
  'ip6 raw',
  'ip cni_hostport',
  'ip6 cni_hostport',
  'inet weft_masquerade',
  'inet cni_plugins_masquerade',
]);

function isTableOf(chain: StandingBaseChain): (table: NftTable) => boolean {
  return ({ family, name }) => family === chain.table.family && name === chain.table.name;
}
