import { toCniError } from '../cni/errors.ts';
import { deadlineIn } from '../kernel/deadline.ts';
import { isErrno } from '../kernel/errno.ts';
import { interfaceTo } from '../kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../kernel/rtnetlink/rtnetlink.ts';
import { legacyFilter, legacyForwardMayDrop, nftChainMayDrop, nftForwardChains } from './forward-chains.ts';
import { readNft } from './nftables/change.ts';
// Not part of the start-up snapshot (build/bundle.mjs, LATE_PARTS): loaded at the first call.
import { describeForwardDrops } from './verdict/forward-drops.ts';
import type { Family } from './ruleset.ts';
import type { KnownPacket } from './verdict/packet.ts';

export interface ForwardWarningOptions {
  /** Subnets that the remedy names instead of single addresses: `10.88.0.0/16`. */
  readonly subnets?: readonly string[];
}

/**
 * Warns in one line of each chain at the forward hook, in any table of nf_tables and in both variants of iptables, that drops one of these
 * packets: chain, rule or policy, and the command that accepts the packets there. Call it at the end of ADD, after the work is done.
 * Never throws, and ends with the call's deadline.
 *
 * Most hosts have nothing that can drop forwarded traffic: then only {@link mayDropForwarded} runs. Otherwise the packets are followed
 * (verdict/). Leave out of a packet what is not known; a test of it then counts as "may match", and only a certain drop is reported.
 *
 * A published port: `{ family: 'ip', outInterface: 'nomad', destination: '172.26.64.5', protocol: 'tcp', destinationPort: 80, state: 'new',
 * translated: true }`; a container's own connection: `{ family: 'ip', inInterface: 'nomad', source: '172.26.64.5', state: 'new' }`.
 *
 * @param packets called only if something on this host can drop forwarded packets
 */
export function warnOfForwardDrops(
  packets: () => readonly KnownPacket[],
  warn: (line: string) => void,
  options: ForwardWarningOptions = {},
): void {
  try {
    if (!mayDropForwarded()) return;
    const limitMs = deadlineIn().remainingMs();
    for (const line of describeForwardDrops(packets(), { subnets: options.subnets ?? [], limitMs }))
      warn(line);
  } catch (thrown) {
    warn(`cannot tell whether the host's firewall drops forwarded packets: ${toCniError(thrown).message}`);
  }
}

/**
 * Whether any rule or policy on this host can drop forwarded packets: a base chain at the forward hook with policy drop, with a rule that
 * drops, or with a jump to a chain of another program. Costs a handful of netlink requests, however many containers there are.
 */
export function mayDropForwarded(): boolean {
  const inLegacy = (['ipv4', 'ipv6'] as const).some((family) => {
    const filter = legacyFilter(family);
    return filter !== undefined && legacyForwardMayDrop(filter);
  });
  return inLegacy || nftMayDrop();
}

/** The interface of the default route, through which most forwarded packets enter or leave the host. */
export function uplinkOf(family: Family): string | undefined {
  using rtnetlink = Rtnetlink.open();
  return interfaceTo(rtnetlink, ANYWHERE[family]);
}

/** Documentation addresses, which only a default route covers; nothing is sent to them. */
const ANYWHERE = { ipv4: '203.0.113.1', ipv6: '2001:db8:ffff::1' } as const;

function nftMayDrop(): boolean {
  try {
    return readNft((reader) => nftForwardChains(reader).some((chain) => nftChainMayDrop(reader, chain)));
  } catch (thrown) {
    // A kernel without nf_tables.
    if (isErrno(thrown, 'EINVAL', 'EOPNOTSUPP', 'EPROTONOSUPPORT')) return false;
    throw thrown;
  }
}
