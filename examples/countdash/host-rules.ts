import { xtablesRules } from './footprint.ts';
import { tool, toolIfThere, tryTool } from './tool.ts';

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
 * Takes away the shared chains that were not there before the example, unless somebody uses them by now. One transaction for each
 * table: a chain that another container has got a rule in cannot be deleted, and then none of the table's chains is touched.
 * @param before `takeFootprint().rules` of the time before
 */
export function removeSharedChains(program: Xtables, before: readonly string[]): void {
  const now = xtablesRules(toolIfThere(`${program}-save`, []));
  const known = new Set(
    before.filter((rule) => rule.startsWith(`${program} `)).map((rule) => rule.slice(program.length + 1)),
  );
  const fresh = now.filter((rule) => !known.has(rule));
  for (const table of ['filter', 'nat']) {
    const script = removalScript(table, fresh);
    if (script !== undefined) tryTool(`${program}-restore`, ['--noflush', ...WAIT], script);
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
