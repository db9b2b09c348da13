import { linkByIndex } from '../../shared/kernel/rtnetlink/links.ts';
import { lookupRoute } from '../../shared/kernel/rtnetlink/routes.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { legacyForwardPolicy } from '../../shared/packetfilter/verdict/legacy-policy.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import { forwardDrops, type DroppingChain } from '../../shared/packetfilter/verdict/forward-drops.ts';
import type { KnownPacket } from '../../shared/packetfilter/verdict/packet.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import { TABLE } from './nftables/objects.ts';
import { FAMILIES, withoutPrefixLength, type FirewallPlan } from './plan.ts';

const OURS = `table ${TABLE.family} ${TABLE.name}`;

/**
 * Warns of every chain of another table that drops what the container sends, or the replies: an accept in the plugin's table ends that
 * table only. Never fails the ADD; a failed lookup is a warning, too.
 */
export function warnOfDrops(plan: FirewallPlan, warn: (line: string) => void): void {
  try {
    for (const line of [
      ...forwardDrops(packetsOf(plan)).map((chain) => advice(chain, plan)),
      ...legacyLines(plan),
    ])
      warn(line);
  } catch (thrown) {
    warn(`could not look whether other tables drop the container's packets: ${toCniError(thrown).message}`);
  }
}

const FAMILY_WORDS = { ipv4: 'ip', ipv6: 'ip6' } as const;
/** Documentation addresses, which only a default route covers; nothing is sent to them. */
const ANYWHERE = { ipv4: '203.0.113.1', ipv6: '2001:db8:ffff::1' } as const;

/** A first packet of the container to the outside, and an answer to it. */
function packetsOf({ addresses, hostInterfaces: [link] }: FirewallPlan): KnownPacket[] {
  return FAMILIES.flatMap((family) => {
    const [host] = addresses[family];
    if (host === undefined) return [];
    const address = withoutPrefixLength(host);
    const uplink = uplinkOf(family);
    return [
      {
        family: FAMILY_WORDS[family],
        inInterface: link,
        outInterface: uplink,
        source: address,
        state: 'new',
      },
      {
        family: FAMILY_WORDS[family],
        inInterface: uplink,
        outInterface: link,
        destination: address,
        state: 'established',
      },
    ];
  });
}

function uplinkOf(family: Family): string | undefined {
  using rtnetlink = Rtnetlink.open();
  const index = lookupRoute(rtnetlink, ANYWHERE[family])?.link;
  return index === undefined ? undefined : linkByIndex(rtnetlink, index)?.name;
}

function advice(chain: DroppingChain, plan: FirewallPlan): string {
  const { table, name, policy, packets } = chain;
  const sent = packets.some(({ state }) => state === 'new');
  const what = sent ? 'packets of this container' : 'answers to this container';
  const why = policy === 'drop' ? 'policy drop' : 'a rule there drops or rejects them';
  return (
    `${what} do not get through: chain ${name} of table ${table.family} ${table.name} drops them (${why}), ` +
    `and that ${OURS} accepts them does not change it; ${solution(chain, plan)}`
  );
}

function solution({ table, name, packets }: DroppingChain, { subnets }: FirewallPlan): string {
  const dropped = FAMILIES.filter((family) => packets.some((one) => one.family === FAMILY_WORDS[family]));
  const networks = dropped.flatMap((family) => subnets[family].map((subnet) => ({ family, subnet })));
  if (table.name === 'firewalld') {
    const commands = networks.map(({ subnet }) => `firewall-cmd --zone=trusted --add-source=${subnet}`);
    return `set "backend": "firewalld" for the firewall plugin, or: ${commands.join('; ')}`;
  }
  const commands = networks.flatMap(({ family, subnet }) =>
    name === 'FORWARD'
      ? iptablesRules(family, subnet)
      : nftRules(`${table.family} ${table.name} ${name}`, subnet),
  );
  const otherBackend =
    name === 'FORWARD' ? 'set "backend": "iptables", whose rules stand in that chain, or ' : '';
  return `${otherBackend}let them through there: ${commands.join('; ')}`;
}

function iptablesRules(family: Family, subnet: string): string[] {
  const insert = `${family === 'ipv4' ? 'iptables' : 'ip6tables'} -I FORWARD`;
  return [
    `${insert} -s ${subnet} -j ACCEPT`,
    `${insert} -d ${subnet} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
  ];
}

function nftRules(chain: string, subnet: string): string[] {
  const field = subnet.includes(':') ? 'ip6' : 'ip';
  return [
    `nft insert rule ${chain} ${field} saddr ${subnet} accept`,
    `nft insert rule ${chain} ${field} daddr ${subnet} ct state established,related accept`,
  ];
}

/** Rules of the legacy variant are not followed: there, its policy alone is told. */
function legacyLines({ addresses }: FirewallPlan): string[] {
  return FAMILIES.filter(
    (family) => addresses[family].length > 0 && legacyForwardPolicy(family) === 'drop',
  ).map(
    (family) =>
      `chain FORWARD of iptables-legacy (${family}) has policy DROP: packets of this container get through only if a rule there ` +
      `accepts them, and that ${OURS} accepts them does not change it; set "backend": "iptables", whose rules stand in that chain`,
  );
}
