import { withoutPrefixLength } from '../../shared/net/address.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import { linkByName } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { isSysctlOn } from '../../shared/kernel/sysctl.ts';
import { uplinkOf, warnOfForwardDrops } from '../../shared/packetfilter/forward-warnings.ts';
import { readNft } from '../../shared/packetfilter/nftables/change.ts';
import { decodeExpressions, jumpTarget } from '../../shared/packetfilter/nftables/decode-expressions.ts';
import { VerdictCode } from '../../shared/packetfilter/nftables/expressions.ts';
import type { NftReader, StandingRule } from '../../shared/packetfilter/nftables/reader.ts';
import type { KnownPacket } from '../../shared/packetfilter/verdict/packet.ts';
import { FORWARD_CHAIN } from './iptables/rules.ts';
import { TABLE } from './nftables/objects.ts';
import { FAMILIES, type FirewallPlan } from './plan.ts';

/*
 * Warnings at the end of ADD: what the operator wants, but this plugin cannot do on this host. None of them fails the ADD.
 */

/**
 * One line for each chain that drops the container's packets although this plugin accepts them: every table of nf_tables decides for
 * itself, and one that drops has the last word.
 */
export function warnOfDrops(plan: FirewallPlan, warn: (line: string) => void): void {
  const { subnets } = plan;
  warnOfForwardDrops(() => packetsOf(plan), warn, { subnets: [...subnets.ipv4, ...subnets.ipv6] });
}

/** For the nftables back end: isolation within a bridge, and rules in the operator's iptables chain. */
export function warnOfIneffective(plan: FirewallPlan, warn: (line: string) => void): void {
  try {
    if (plan.ingressPolicy === 'isolated') warnOfBridging(plan, warn);
    readNft((reader) => warnOfUnusedChain(reader, plan.adminChain, warn));
  } catch (thrown) {
    warn(
      `cannot tell whether ingressPolicy and chain ${plan.adminChain} have an effect: ${toCniError(thrown).message}`,
    );
  }
}

const NFT_FAMILIES = { ipv4: 'ip', ipv6: 'ip6' } as const;

/** The first packet of a TCP connection of the container to the outside, and a reply to it. */
function packetsOf({ addresses, hostInterfaces: [link] }: FirewallPlan): KnownPacket[] {
  return FAMILIES.flatMap((family): KnownPacket[] => {
    const [host] = addresses[family];
    if (host === undefined) return [];
    const address = withoutPrefixLength(host);
    const uplink = uplinkOf(family);
    const packet = { family: NFT_FAMILIES[family], protocol: 'tcp' } as const;
    return [
      { ...packet, inInterface: link, outInterface: uplink, source: address, state: 'new' },
      { ...packet, inInterface: uplink, outInterface: link, destination: address, state: 'established' },
    ];
  });
}

/** Frames between two ports of a bridge pass the host's firewall only with br_netfilter. */
function warnOfBridging(
  { bridge = '', addresses, hostInterfaces }: FirewallPlan,
  warn: (line: string) => void,
): void {
  const switches = { ipv4: 'bridge-nf-call-iptables', ipv6: 'bridge-nf-call-ip6tables' };
  const off = FAMILIES.filter(
    (family) => addresses[family].length > 0 && !isSysctlOn(`net/bridge/${switches[family]}`),
  );
  if (off.length === 0 || hasIsolatedPort(hostInterfaces)) return;
  const sysctls = off.map((family) => `net.bridge.${switches[family]}=1`).join(' ');
  warn(
    `bridge ${bridge}: its containers are not isolated from each other, because frames within a bridge pass no firewall; ` +
      `modprobe br_netfilter and sysctl ${sysctls}, or set "portIsolation": true for the bridge plugin`,
  );
}

function hasIsolatedPort(hostInterfaces: readonly string[]): boolean {
  using rtnetlink = Rtnetlink.open();
  return hostInterfaces.some((name) => linkByName(rtnetlink, name)?.port?.isolated === true);
}

/** The operator's chain of iptables, which only the iptables back end jumps to, if it does more than accept. */
function warnOfUnusedChain(reader: NftReader, name: string, warn: (line: string) => void): void {
  for (const family of ['ip', 'ip6'] as const) {
    const table = { family, name: 'filter' } as const;
    const rules = reader.rules({ table, name });
    if (rules.every(accepts) || isUsed(reader, family, name)) continue;
    const program = family === 'ip' ? 'iptables' : 'ip6tables';
    warn(
      `chain ${name} of ${program}: its rules have no effect while the firewall plugin uses nftables; move them to ` +
        `chain ${name} of table ${TABLE.family} ${TABLE.name}, or jump to them: ${program} -I FORWARD -j ${name}`,
    );
  }
}

/** Through the iptables back end's jump, or directly. */
function isUsed(reader: NftReader, family: 'ip' | 'ip6', name: string): boolean {
  const table = { family, name: 'filter' } as const;
  return ['FORWARD', FORWARD_CHAIN].some((chain) =>
    reader.rules({ table, name: chain }).some((rule) => jumpTarget(rule.expressions) === name),
  );
}

/** Nomad's own rule in its chain accepts, which has no effect where nothing is dropped. */
function accepts(rule: StandingRule): boolean {
  const last = decodeExpressions(rule.expressions).at(-1);
  return last?.kind === 'verdict' && last.code === VerdictCode.accept;
}
