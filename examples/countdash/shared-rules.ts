import { linesOf, tool, toolIfThere, tryTool } from './tool.ts';
import { isErrno } from '../../shared/kernel/errno.ts';
import { changeNft, hasNftables } from '../../shared/packetfilter/nftables/change.ts';
import { NftConnection } from '../../shared/packetfilter/nftables/connection.ts';
import { deleteTable } from '../../shared/packetfilter/nftables/messages.ts';
import type { NftFamily, NftTable } from '../../shared/packetfilter/nftables/model.ts';
import type { NftReader } from '../../shared/packetfilter/nftables/reader.ts';

export type Xtables = 'iptables' | 'ip6tables';

const ADMIN_CHAIN = 'NOMAD-ADMIN';
/** Seconds to wait for the lock of the legacy variant. */
const WAIT = ['--wait', '5'];
/** Chains that the plugins make once for a host and keep, because other containers may use them: the reference's names. */
const SHARED_CHAINS = [
  ADMIN_CHAIN,
  'CNI-FORWARD',
  'CNI-HOSTPORT-DNAT',
  'CNI-HOSTPORT-SETMARK',
  'CNI-HOSTPORT-MASQ',
];
/** What stands in those chains on behalf of no container. */
const SHARED_TARGETS = ['MARK', 'MASQUERADE', ...SHARED_CHAINS];

/** What Nomad's client does before each allocation's network: its chain, and in it the bridge's traffic accepted. */
export function acceptInAdminChain(program: Xtables, bridge: string, subnet: string): void {
  const chains = tool(program, [...WAIT, '-t', 'filter', '-S']);
  if (!new RegExp(`^-N ${ADMIN_CHAIN}$`, 'm').test(chains))
    tool(program, [...WAIT, '-t', 'filter', '-N', ADMIN_CHAIN]);
  const rule = adminRule(bridge, subnet);
  if (tryTool(program, [...WAIT, '-t', 'filter', '-C', ...rule]).exitCode !== 0) {
    tool(program, [...WAIT, '-t', 'filter', '-A', ...rule]);
  }
}

export function removeFromAdminChain(program: Xtables, bridge: string, subnet: string): void {
  const remove = [...WAIT, '-t', 'filter', '-D', ...adminRule(bridge, subnet)];
  // A crash between two runs may have left it twice.
  while (tryTool(program, remove).exitCode === 0);
}

/**
 * Removes the shared chains that did not exist before the example, unless other containers use them now. One transaction for each
 * table: a chain that another container has got a rule in cannot be deleted, and then none of the table's chains is touched.
 * @param before `takeFootprint().rules` from before the example
 */
export function removeSharedChains(program: Xtables, before: readonly string[]): void {
  const now = xtablesRules(toolIfThere(`${program}-save`, []));
  const known = new Set(
    before.filter((rule) => rule.startsWith(`${program} `)).map((rule) => rule.slice(program.length + 1)),
  );
  const fresh = now.filter((rule) => !known.has(rule));
  for (const table of ['filter', 'nat']) {
    const script = removalScript(table, fresh);
    if (script !== undefined) tryTool(`${program}-restore`, ['--noflush', ...WAIT], { input: script });
  }
}

/** @param fresh rules and chains that were not there before, as {@link xtablesRules} writes them */
export function removalScript(table: string, fresh: readonly string[]): string | undefined {
  const here = fresh
    .filter((rule) => rule.startsWith(`-t ${table} `))
    .map((rule) => rule.slice(`-t ${table} `.length));
  const chains = SHARED_CHAINS.filter((chain) => here.includes(`-N ${chain}`));
  const removable = (rule: string): boolean => {
    const [, chain = '', target = ''] = /^-A (\S+) .*-j (\S+)/.exec(rule) ?? [];
    return chains.includes(target) || (chains.includes(chain) && SHARED_TARGETS.includes(target));
  };
  const rules = here.filter(removable).map((rule) => rule.replace(/^-A/, '-D'));
  if (chains.length === 0 && rules.length === 0) return undefined;
  return [`*${table}`, ...rules, ...chains.map((chain) => `-X ${chain}`), 'COMMIT', ''].join('\n');
}

function adminRule(bridge: string, subnet: string): string[] {
  return [ADMIN_CHAIN, '-o', bridge, '-d', subnet, '-j', 'ACCEPT'];
}

/**
 * Removes the nftables tables that the plugins create once for a host, as `removeSharedChains` does for iptables: those that did not exist
 * before the example and hold nothing of any container. The kernel rejects the transaction when the ruleset has changed since it was
 * read, so that a container created at the same moment keeps its table.
 * @param before `takeFootprint().rules` from before the example
 */
export function removeSharedTables(before: readonly string[]): void {
  if (!hasNftables()) return;
  const fresh = SHARED_TABLES.filter(
    ({ table: { family, name } }) => !before.some((rule) => rule.startsWith(`nft table ${family} ${name} `)),
  );
  changeNft({ what: 'delete unused tables' }, (view) =>
    fresh.filter((shared) => isIdle(view, shared)).map(({ table }) => deleteTable(table)),
  );
}

interface SharedTable {
  readonly table: NftTable;
  /** Chains that it has without any container. */
  readonly chains: readonly string[];
  /** Maps whose elements are containers'. */
  readonly maps: readonly string[];
}

const hostports = (family: 'ip' | 'ip6'): SharedTable => ({
  table: { family, name: 'weft_hostports' },
  chains: ['prerouting', 'output', 'postrouting'],
  maps: ['ports', 'address_ports'],
});

const SHARED_TABLES: readonly SharedTable[] = [
  {
    table: { family: 'inet', name: 'weft_masquerade' },
    chains: ['postrouting'],
    maps: ['ipv4', 'ipv6'],
  },
  hostports('ip'),
  hostports('ip6'),
];

function isIdle(view: NftReader, { table, chains, maps }: SharedTable): boolean {
  return (
    view.hasTable(table) &&
    view.chains(table).every(({ name }) => chains.includes(name)) &&
    maps.every((name) => view.elements({ table, name }).length === 0)
  );
}

/** Tables that iptables-nft makes, with their built-in chains, whenever it is asked to do something with them. */
const BY_IPTABLES = /^(ip|ip6) (filter|nat|mangle|raw|security)$/;

/** `ip filter`, ...: the tables of iptables-nft that there are, out of the output of `nft list ruleset`. */
export function iptablesTables(ruleset: string): string[] {
  return tableNames(ruleset).filter((table) => BY_IPTABLES.test(table));
}

/** The text of `nft list ruleset` without empty accepting base chains: what is left of a table without rules is its braces. */
export function withoutEmptyChains(ruleset: string): string {
  const emptyChain = /^\tchain \S+ \{\n\t\ttype [^\n]*policy accept;\n\t\}\n\n?/gm;
  return ruleset
    .replace(/^# Warning:[^\n]*\n/gm, '')
    .replace(emptyChain, '')
    .replace(/\n\n\}/g, '\n}');
}

/** A table that holds nothing, as {@link withoutEmptyChains} leaves it. */
export const EMPTY_TABLE = /^table [^\n]* \{\n\}\n/gm;

/**
 * Removes the tables that were created during the example and are empty again. If another program commits to nf_tables between
 * the listing and the deletion, the kernel rejects the deletion, and the tables are listed again.
 * @param before `takeFootprint().tables` from before the example
 */
export function removeEmptyTables(before: readonly string[]): void {
  for (let attempt = 0; attempt < 5; attempt += 1) {
    using nft = NftConnection.open();
    const generation = nft.generation();
    const ruleset = toolIfThere('nft', ['-s', 'list', 'ruleset']);
    const empty = tableNames((withoutEmptyChains(ruleset).match(EMPTY_TABLE) ?? []).join(''));
    const ours = empty.filter((table) => BY_IPTABLES.test(table) && !before.includes(table));
    try {
      nft.commit(
        ours.map((table) => deleteTable(tableOf(table))),
        generation,
      );
      return;
    } catch (thrown) {
      if (!isErrno(thrown, 'ERESTART')) throw thrown;
    }
  }
}

function tableNames(ruleset: string): string[] {
  return [...ruleset.matchAll(/^table (\S+ \S+) \{$/gm)].map(([, name = '']) => name);
}

function tableOf(text: string): { family: NftFamily; name: string } {
  const [family = '', name = ''] = text.split(' ');
  return { family: family as NftFamily, name };
}

/** `-t nat -A CHAIN ...` for each rule and `-t nat -N CHAIN` for each chain of `iptables-save`'s output. */
export function xtablesRules(saved: string): string[] {
  let table = '';
  return linesOf(saved).flatMap((line) => {
    if (line.startsWith('*')) table = line.slice(1);
    if (line.startsWith('-A')) return [`-t ${table} ${line}`];
    const [, chain, policy] = /^:(\S+) (\S+)/.exec(line) ?? [];
    if (chain === undefined || policy === 'ACCEPT') return [];
    return [policy === '-' ? `-t ${table} -N ${chain}` : `-t ${table} -P ${chain} ${policy}`];
  });
}
