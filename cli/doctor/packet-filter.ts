import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import { isUnmanaged, jumpOf, ruleKey } from '../../shared/packetfilter/compare.ts';
import { mayDropForwarded, uplinkOf } from '../../shared/packetfilter/forward-warnings.ts';
import { needTools, runTool } from '../../shared/packetfilter/iptables/tools.ts';
import type { Family, Rule, TableName } from '../../shared/packetfilter/ruleset.ts';
import { chooseDriver } from '../../shared/packetfilter/select.ts';
import { findForwardDrops } from '../../shared/packetfilter/verdict/forward-drops.ts';
import type { KnownPacket } from '../../shared/packetfilter/verdict/packet.ts';
import { formatCidr, withoutPrefixLength } from '../../shared/net/address.ts';
import { subnetsOf, type Network } from './networks.ts';
import type { Check, Finding } from './finding.ts';
import { missingRules } from './missing-rules.ts';
import { PROGRAMS, type Host, type IptablesTable } from './examined-host.ts';
import { managerOf } from './firewalls.ts';
import { orphanedRules } from './orphaned-rules.ts';

export const PACKET_FILTER_CHECKS: readonly Check<Host>[] = [
  { name: 'programs of iptables', group: 'packet filter', run: programs },
  { name: 'rules of nftables in tables of iptables', group: 'packet filter', run: nativeRules },
  { name: 'variants of iptables', group: 'packet filter', run: variants },
  { name: 'forwarded packets', group: 'packet filter', run: forwardedPackets },
  { name: "Nomad's admin chain", group: 'packet filter', run: adminChain },
  { name: 'rules of running allocations', group: 'packet filter', run: missingRules },
  { name: 'rules of allocations that are gone', group: 'packet filter', run: orphanedRules },
  { name: 'duplicated rules', group: 'packet filter', run: duplicatedRules },
];

/** Nomad lists the tables `filter` and `nat` for each allocation. */
function programs(host: Host): Finding[] {
  if (host.iptablesVariant('ipv4') === undefined)
    return [
      {
        id: 'iptables-missing',
        what: 'neither iptables-save nor iptables-restore is in PATH',
        where: 'PATH',
        remedy: 'install the package iptables',
      },
    ];
  return host
    .iptablesTables()
    .filter(({ isOwn, variant, state }) => isOwn && variant === 'nft' && state.chains.size > 0)
    .flatMap(({ state: { family, table } }) => whyNotListed(family, table));
}

function whyNotListed(family: Family, table: TableName): Finding[] {
  const { save } = needTools(family);
  const program = save.replace(/-save$/, '');
  const { exitCode, stderr } = runTool(program, ['-t', table, '-S', ...LISTED[table]], { where: 'host' });
  if (exitCode === 0) return [];
  const nft = `${family === 'ipv4' ? 'ip' : 'ip6'} ${table}`;
  return [
    {
      id: 'iptables-unusable',
      what: `${PROGRAMS[family]} -t ${table} -S fails: ${reasonIn(stderr)}`,
      where: `table ${nft}`,
      remedy: `find the rules that iptables cannot show (nft -a list table ${nft}), and move them to a table of their own`,
    },
  ];
}

/** The last line that is no comment: before it, iptables mentions tables of its other variant. */
function reasonIn(stderr: string): string {
  const lines = stderr.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return lines.at(-1) ?? '';
}

/** As Nomad lists them: for its admin chain, and to remove masquerading. */
const LISTED = { filter: [], nat: ['POSTROUTING'] } as const;

function nativeRules(host: Host): Finding[] {
  return [...Map.groupBy(host.nativeRules(), ({ table, chain }) => `${table} ${chain}`)].map(
    ([where, rules]) => ({
      id: 'native-rules',
      what: `chain ${where} has ${rules.length === 1 ? 'a rule' : `${rules.length} rules`} that iptables cannot write`,
      where: `chain ${where}`,
      // The rule itself is the operator's to write again, in a table of its own.
      remedy: rules.map(({ handle }) => `nft delete rule ${where} handle ${handle}`).join('; '),
    }),
  );
}

function variants(host: Host): Finding[] {
  const others = host.iptablesTables().filter(({ isOwn, variant, state }) => {
    const hasProgram = host.iptablesVariant(state.family) !== undefined;
    return hasProgram && !isOwn && variant !== undefined && ruleCount(state) > 0;
  });
  return others.map(({ variant, state: { family, table }, state }) => {
    const program = `${PROGRAMS[family]}-${variant}`;
    return {
      id: 'iptables-two-variants',
      what: `table ${table} of ${program} has rules (${ruleCount(state)}), which ${PROGRAMS[family]} does not show`,
      where: `table ${table} of ${program}`,
      remedy: `move the rules that are needed (${program}-save -t ${table}), then: ${program} -t ${table} -F`,
    };
  });
}

/** Up to a few: counting a table of ten thousand chains has no use. */
function ruleCount({ chains }: IptablesTable['state']): number {
  let count = 0;
  for (const name of chains.keys()) {
    count += chains.get(name)?.length ?? 0;
    if (count > 1000) break;
  }
  return count;
}

/** A connection of an allocation to the outside, the reply, and the first packet to a published port. */
function forwardedPackets(host: Host): Finding[] {
  const running = host.attachments().filter(({ state }) => state === 'running');
  if (running.length === 0 || !mayDropForwarded()) return [];
  const networks = new Map(host.networks().map((network) => [network.name, network]));
  const uplinks = new Map(FAMILIES.map((family) => [family, uplinkOf(family)]));
  const packets = running.slice(-MOST_FOLLOWED).flatMap((attachment) => {
    const network = networks.get(attachment.network);
    return network === undefined ? [] : packetsOf(attachment, network, uplinks);
  });
  const subnets = host.networks().flatMap(subnetsOf).map(formatCidr);
  return findForwardDrops(packets, { subnets, limitMs: FOLLOW_LIMIT_MS }).map(
    ({ where, what, commands }) => ({
      id: 'forward-drop',
      what: `${where}${managerOf(what)} ${what}`,
      where,
      remedy: commands.map((command) => lasting(command, what)).join('; '),
    }),
  );
}

/** Docker puts its chains before rules of others when it starts, and keeps those of operators in DOCKER-USER. */
function lasting(command: string, what: string): string {
  return managerOf(what) === ' (Docker)' ? command.replace(/ -I FORWARD /, ' -I DOCKER-USER ') : command;
}

const FAMILIES = ['ipv4', 'ipv6'] as const;
/** The newest ones: three packets each. */
const MOST_FOLLOWED = 20;
const FOLLOW_LIMIT_MS = 500;

function packetsOf(
  { addresses, capabilityArgs }: InventoryEntry,
  { bridge }: Network,
  uplinks: ReadonlyMap<Family, string | undefined>,
): KnownPacket[] {
  const [port] = (capabilityArgs['portMappings'] ?? []) as Record<string, unknown>[];
  const containerPort = port?.['ContainerPort'] ?? port?.['containerPort'];
  return addresses.flatMap((text): KnownPacket[] => {
    const address = withoutPrefixLength(text);
    const family = address.includes(':') ? 'ipv6' : 'ipv4';
    const uplink = uplinks.get(family);
    const packet = { family: family === 'ipv4' ? 'ip' : 'ip6', protocol: 'tcp' } as const;
    const inwards = { ...packet, inInterface: uplink, outInterface: bridge, destination: address } as const;
    return [
      { ...packet, inInterface: bridge, outInterface: uplink, source: address, state: 'new' },
      { ...inwards, state: 'established' },
      ...(typeof containerPort === 'number'
        ? [{ ...inwards, destinationPort: containerPort, state: 'new', translated: true } as const]
        : []),
    ];
  });
}

/** Nomad adds this rule for every allocation of its own network, after it made sure that the chain exists. */
function adminChain(host: Host): Finding[] {
  const network = host.networks().find(({ name }) => name === 'nomad');
  const running = host.attachments().filter((one) => one.state === 'running' && one.network === 'nomad');
  if (network?.adminChain === undefined || running.length === 0) return [];
  const { adminChain: chain, bridge } = network;
  return subnetsOf(network).flatMap((subnet): Finding[] => {
    const { family } = subnet.address;
    const filter = host
      .iptablesTables()
      .find(({ isOwn, state }) => isOwn && state.family === family && state.table === 'filter')?.state;
    // Without CNI-FORWARD, the firewall plugin uses another back end.
    if (filter === undefined || !filter.chains.has('CNI-FORWARD')) return [];
    const rules = filter.chains.get(chain) ?? [];
    if (rules.some((rule) => isUnmanaged(rule) || (rule.outInterface?.value === bridge && accepts(rule))))
      return [];
    const rule: Rule = {
      outInterface: { value: bridge },
      destination: { value: formatCidr(subnet) },
      target: { kind: 'accept' },
    };
    const command = (verb: string): string =>
      `${PROGRAMS[family]} ${verb} ${chain} -d ${formatCidr(subnet)} -o ${bridge} -j ACCEPT`;
    const create = filter.chains.has(chain) ? '' : `${PROGRAMS[family]} -N ${chain}; `;
    return [
      {
        id: 'nomad-admin',
        what: `chain ${chain} has no rule that accepts new connections to ${bridge}`,
        where: `chain ${chain} of ${PROGRAMS[family]}`,
        remedy: `${create}${command('-A')}`,
        fix: {
          command: `${create}${command('-A')}`,
          undo: command('-D'),
          apply: () =>
            chooseDriver().apply([
              {
                family,
                table: 'filter',
                ensureChains: [chain],
                ensureRules: [{ chain, rule, at: 'last' }],
              },
            ]),
        },
      },
    ];
  });
}

function accepts({ target }: Rule): boolean {
  return target.kind === 'accept';
}

/** Of the chains that hold rules of attachments, and of the jumps to them. */
function duplicatedRules(host: Host): Finding[] {
  const chains = {
    filter: ['FORWARD', 'CNI-FORWARD'],
    nat: ['PREROUTING', 'OUTPUT', 'POSTROUTING', 'CNI-HOSTPORT-DNAT'],
  };
  return host.iptablesTables().flatMap(({ variant, state }) =>
    chains[state.table].flatMap((chain): Finding[] => {
      const counts = new Map<string, number>();
      for (const rule of state.chains.get(chain) ?? []) {
        if (isUnmanaged(rule) || !(chain.startsWith('CNI-') || jumpOf(rule)?.startsWith('CNI-') === true))
          continue;
        counts.set(ruleKey(rule), (counts.get(ruleKey(rule)) ?? 0) + 1);
      }
      const more = [...counts].filter(([, count]) => count > 1);
      const [first] = more;
      if (first === undefined) return [];
      const program =
        host.iptablesVariant(state.family) === variant
          ? PROGRAMS[state.family]
          : `${PROGRAMS[state.family]}-${variant}`;
      return [
        {
          id: 'rules-duplicated',
          what: `rule "-A ${chain} ${first[0]}" is there ${first[1]} times${more.length > 1 ? `, and ${more.length - 1} other rules more than once` : ''}`,
          where: `chain ${chain} of ${program}`,
          remedy: more
            .flatMap(([rule, count]) =>
              Array.from({ length: count - 1 }, () => `${program} -t ${state.table} -D ${chain} ${rule}`),
            )
            .join('; '),
        },
      ];
    }),
  );
}
