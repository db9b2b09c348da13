import { isPolicy } from '../../plugins/firewall/policy/policy-table.ts';
import { policyDifference } from '../../plugins/firewall/policy/policy.ts';
import { publishedPorts, type PublishedPort } from '../../plugins/portmap/published.ts';
import { isNodeConfigOfAdd } from '../../shared/attachments/node-config-of-add.ts';
import { NODE_CONFIG_FILE, validNodeConfig } from '../../shared/config/node-config.ts';
import { isUnmanaged, jumpOf } from '../../shared/packetfilter/compare.ts';
import { ruleText } from '../../shared/packetfilter/iptables/render.ts';
import type { Rule, TableState } from '../../shared/packetfilter/ruleset.ts';
import type { Check, Finding } from './finding.ts';
import { PROGRAMS, type Host } from './examined-host.ts';

/** Other programs that manage the packet filter, and the policy of this node. Docker, libvirt and kube-proxy are no finding by themselves. */
export const FIREWALL_CHECKS: readonly Check<Host>[] = [
  { name: 'firewalld', group: 'packet filter', run: firewalld },
  { name: 'ufw', group: 'packet filter', run: ufw },
  { name: 'published ports', group: 'packet filter', run: publishedElsewhere },
  { name: 'policy of the node', group: 'packet filter', run: nodePolicy },
];

/** Programs that are known by the names of their chains and tables. */
const MANAGERS: readonly (readonly [RegExp, string])[] = [
  [/\bDOCKER\b|\bDOCKER-/, 'Docker'],
  [/\bufw6?-/, 'ufw'],
  [/\bLIBVIRT_|\blibvirt_network\b/, 'libvirt'],
  [/\bKUBE-|\bkube-proxy\b/, 'kube-proxy'],
  [/\bfirewalld\b/, 'firewalld'],
];

/** ` (Docker)`, or nothing. */
export function managerOf(text: string): string {
  const manager = MANAGERS.find(([pattern]) => pattern.test(text))?.[1];
  return manager === undefined ? '' : ` (${manager})`;
}

/** With its back end nftables, firewalld touches its own table only. */
function firewalld(host: Host): Finding[] {
  const config = host.text('/etc/firewalld/firewalld.conf') ?? '';
  if (
    host.text('/run/firewalld.pid') === undefined ||
    !/^\s*FirewallBackend\s*=\s*iptables\s*$/m.test(config)
  )
    return [];
  return [
    {
      id: 'firewalld-reload',
      what: 'firewalld runs with FirewallBackend=iptables',
      where: '/etc/firewalld/firewalld.conf',
      remedy: `sed -i 's/^FirewallBackend=.*/FirewallBackend=nftables/' /etc/firewalld/firewalld.conf; systemctl restart firewalld`,
    },
  ];
}

/** Otherwise ufw removes and adds only jumps to chains of its own. */
function ufw(host: Host): Finding[] {
  const file = '/etc/default/ufw';
  const isEnabled = /^\s*ENABLED\s*=\s*yes\s*$/m.test(host.text('/etc/ufw/ufw.conf') ?? '');
  if (!isEnabled || !/^\s*MANAGE_BUILTINS\s*=\s*["']?yes["']?\s*$/m.test(host.text(file) ?? '')) return [];
  return [
    {
      id: 'ufw-reload',
      what: 'ufw is enabled with MANAGE_BUILTINS=yes',
      where: file,
      remedy: `sed -i 's/^MANAGE_BUILTINS=.*/MANAGE_BUILTINS=no/' ${file}`,
    },
  ];
}

/** Published ports of Docker, node ports of kube-proxy: the first rule that translates a connection decides. */
function publishedElsewhere(host: Host): Finding[] {
  const running = host.attachments().filter(({ state }) => state === 'running');
  const ports = running.flatMap(({ containerId, plugins }) =>
    publishedPorts(plugins).map((port) => ({ ...port, containerId })),
  );
  if (ports.length === 0) return [];
  const nat = host.iptablesTables().filter(({ state: { table } }) => table === 'nat');
  return nat.flatMap(({ state, isOwn, variant }) => {
    const translations = translationsBefore(state, 'PREROUTING', OWN_CHAIN);
    const program = `${PROGRAMS[state.family]}${isOwn ? '' : `-${variant}`}`;
    return translations.flatMap(({ chain, rule }): Finding[] => {
      const taken = ports.find((port) => takes(rule, port));
      if (taken === undefined) return [];
      const text = `-A ${chain} ${ruleText(rule)}`;
      return [
        {
          id: 'port-elsewhere',
          what: `host port ${taken.host}/${taken.protocol} of ${taken.containerId} goes elsewhere${managerOf(text)}: "${text}"`,
          where: `chain ${chain} of ${program}`,
          remedy: `give one of the two another port, or: ${program} -t nat -D ${chain} ${ruleText(rule)}`,
        },
      ];
    });
  });
}

const OWN_CHAIN = 'CNI-HOSTPORT-DNAT';

/** Rules with a port that translate, or jump to a chain that may, which are evaluated before the jump to `end`; none without such a jump. */
function translationsBefore(
  { chains }: TableState,
  start: string,
  end: string,
): { readonly chain: string; readonly rule: Rule }[] {
  const found: { readonly chain: string; readonly rule: Rule }[] = [];
  const visited = new Set<string>();
  const reachesEnd = (chain: string): boolean => {
    if (visited.has(chain)) return false;
    visited.add(chain);
    for (const rule of chains.get(chain) ?? []) {
      if (isUnmanaged(rule)) continue;
      const target = jumpOf(rule);
      if (target === end) return true;
      if (hasPorts(rule)) {
        if (target !== undefined || rule.target.kind === 'dnat' || rule.target.kind === 'redirect')
          found.push({ chain, rule });
      } else if (target !== undefined && reachesEnd(target)) return true;
    }
    return false;
  };
  return reachesEnd(start) ? found : [];
}

function hasPorts({ matches = [] }: Rule): boolean {
  return matches.some(({ kind }) => kind === 'port' || kind === 'multiport');
}

/** Whether the rule takes connections to the mapping. */
function takes({ protocol, destination, matches = [] }: Rule, mapping: PublishedPort): boolean {
  const ports = matches.flatMap((match) =>
    match.kind === 'port'
      ? [match.destinationPort]
      : match.kind === 'multiport'
        ? match.destinationPorts
        : [],
  );
  const isElsewhere =
    destination !== undefined &&
    mapping.address !== '' &&
    !destination.value.startsWith(`${mapping.address}/`);
  const last = mapping.host + mapping.range - 1;
  return (
    protocol === mapping.protocol &&
    !isElsewhere &&
    ports.some((port) => port.first <= last && mapping.host <= port.last)
  );
}

/** A policy that an ADD has enforced and that is damaged is among the missing rules, which `weft repair` restores. */
function nodePolicy(host: Host): Finding[] {
  const running = host
    .attachments()
    .filter(({ state, plugins }) => state === 'running' && plugins.some(({ type }) => type === 'firewall'));
  if (running.length === 0) return [];
  // An invalid file is a finding of the plugins' checks.
  const problems: string[] = [];
  const policy = validNodeConfig((line) => void problems.push(line));
  if (problems.length > 0) return [];
  const enforced = running.some(
    ({ network, containerId, ifname }) =>
      ifname !== undefined && isNodeConfigOfAdd({ network, containerId, ifname }),
  );
  if (isPolicy(policy) && enforced) return [];
  const bridges = host
    .networks()
    .filter(({ name }) => running.some(({ network }) => network === name))
    .map(({ bridge }) => bridge);
  const difference = policyDifference(policy, bridges);
  if (difference === undefined) return [];
  return [
    {
      id: 'policy-not-enforced',
      what: `the policy of ${NODE_CONFIG_FILE} is not in force: ${difference}`,
      where: 'table inet weft_policy',
      remedy: `restart one allocation: nomad alloc restart ${running.at(-1)?.containerId ?? ''}; with "isolation": "allocation", each of them`,
    },
  ];
}
