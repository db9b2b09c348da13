import { toCniError } from '../../../shared/cni/errors.ts';
import { isErrno } from '../../../shared/kernel/errno.ts';
import { linkByName } from '../../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../../shared/kernel/rtnetlink/rtnetlink.ts';
import { readSysctl } from '../../../shared/kernel/sysctl.ts';
import { readNft } from '../../../shared/packetfilter/nftables/change.ts';
import { VerdictCode } from '../../../shared/packetfilter/nftables/expressions.ts';
import { decodeExpressions, jumpTarget } from '../../../shared/packetfilter/nftables/decode-expressions.ts';
import type { NftReader, StandingRule } from '../../../shared/packetfilter/nftables/reader.ts';
import { TABLE } from './objects.ts';
import { FORWARD_CHAIN } from '../iptables/rules.ts';
import { FAMILIES, type FirewallPlan } from '../plan.ts';

/** Warns of what the operator wants but the nftables back end alone cannot do. Never fails the ADD. */
export function warnOfIneffective(plan: FirewallPlan, warn: (line: string) => void): void {
  try {
    if (plan.ingressPolicy === 'isolated') warnOfBridging(plan, warn);
    readNft((reader) => warnOfUnusedChain(reader, plan.adminChain, warn));
  } catch (thrown) {
    warn(
      `could not look whether the host's settings agree with the firewall's: ${toCniError(thrown).message}`,
    );
  }
}

/** Frames between two ports of a bridge meet the host's firewall only if br_netfilter hands them over. */
function warnOfBridging(
  { bridge = '', addresses, hostInterfaces }: FirewallPlan,
  warn: (line: string) => void,
): void {
  const switches = { ipv4: 'bridge-nf-call-iptables', ipv6: 'bridge-nf-call-ip6tables' };
  const off = FAMILIES.filter(
    (family) => addresses[family].length > 0 && !isOn(`net/bridge/${switches[family]}`),
  );
  if (off.length === 0 || hasIsolatedPort(hostInterfaces)) return;
  const sysctls = off.map((family) => `net.bridge.${switches[family]}=1`).join(' ');
  warn(
    `containers of bridge ${bridge} are not isolated from each other: what stays within a bridge passes no firewall; ` +
      `modprobe br_netfilter and sysctl ${sysctls}, or set "portIsolation": true for the bridge plugin`,
  );
}

function isOn(sysctl: string): boolean {
  try {
    return readSysctl(sysctl) === '1';
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT')) return false;
    throw thrown;
  }
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
    warn(
      `the rules in chain ${name} of ${family === 'ip' ? 'iptables' : 'ip6tables'} have no effect while the firewall ` +
        `plugin uses nftables; move them to chain ${name} of table ${TABLE.family} ${TABLE.name}, ` +
        `or jump to them: ${family === 'ip' ? 'iptables' : 'ip6tables'} -I FORWARD -j ${name}`,
    );
  }
}

/** As the iptables backend leads there, or directly. */
function isUsed(reader: NftReader, family: 'ip' | 'ip6', name: string): boolean {
  const table = { family, name: 'filter' } as const;
  return ['FORWARD', FORWARD_CHAIN].some((chain) =>
    reader.rules({ table, name: chain }).some((rule) => jumpTarget(rule.expressions) === name),
  );
}

/** Nomad's own rule there accepts, which means nothing where nothing is dropped. */
function accepts(rule: StandingRule): boolean {
  const last = decodeExpressions(rule.expressions).at(-1);
  return last?.kind === 'verdict' && last.code === VerdictCode.accept;
}
