import { deadlineIn, withCallDeadline } from '../../kernel/deadline.ts';
import { containsAddress, parseAddress, parseCidr } from '../../net/address.ts';
import { legacyFilter, nftForwardChains } from '../forward-chains.ts';
import { decodeRule } from '../iptables-nft/decode-rule.ts';
import { ruleText } from '../iptables/render.ts';
import { isUnmanaged } from '../compare.ts';
import { findTools } from '../iptables/tools.ts';
import type { IptablesVariant } from '../tables-in-use.ts';
import { readNft } from '../nftables/change.ts';
import type { NftTable } from '../nftables/model.ts';
import type { Family } from '../ruleset.ts';
import { followForward } from './follow-iptables.ts';
import type { KnownPacket } from './packet.ts';
import { ChainRules, verdictIn, type Decider } from './verdict.ts';

/** A base chain that drops some of the packets, whatever other tables say. */
interface DroppingChain {
  /** iptables' own table where `iptables` is given. */
  readonly table: NftTable;
  readonly name: string;
  readonly policy: 'accept' | 'drop';
  /** `policy drop`, or the rule that drops the first of the packets. */
  readonly reason: string;
  /** The packets that are dropped there; at least one. */
  readonly packets: readonly KnownPacket[];
  /** The program that manages the chain: `iptables`, `ip6tables-legacy`. */
  readonly program: string | undefined;
}

/** One chain that drops packets for certain. */
export interface ForwardDrop {
  /** `chain FORWARD of iptables` */
  readonly where: string;
  /** `drops tcp packets to 172.26.64.5:80 and 2 more (policy drop)` */
  readonly what: string;
  /** The commands that accept the packets there. */
  readonly commands: readonly string[];
}

interface DropOptions {
  /** Named in the commands instead of the single addresses that they contain. */
  readonly subnets: readonly string[];
  readonly limitMs: number;
}

/** Each chain that drops one of these packets. At most {@link MOST_PACKETS} are followed, and none after `limitMs`. */
export function findForwardDrops(packets: readonly KnownPacket[], options: DropOptions): ForwardDrop[] {
  // Errors and deadlines of this bundle are its own (build/bundle.mjs, LATE_PARTS).
  return withCallDeadline(() => {
    const followed = packets.slice(0, MOST_PACKETS);
    return [...forwardDrops(followed), ...legacyForwardDrops(followed)].map((chain) =>
      describe(chain, options.subnets),
    );
  }, options.limitMs);
}

/** The same as one line for each chain. */
export function describeForwardDrops(packets: readonly KnownPacket[], options: DropOptions): string[] {
  return findForwardDrops(packets, options).map(
    ({ where, what, commands }) => `${where} ${what}; accept with: ${commands.join('; ')}`,
  );
}

/** A chain may have thousands of rules, and each packet meets all of them. */
const MOST_PACKETS = 64;

/** Chains of nf_tables at the hook forward, iptables-nft's included, without the tables of this suite. */
function forwardDrops(packets: readonly KnownPacket[]): DroppingChain[] {
  const deadline = deadlineIn();
  return readNft((reader) =>
    nftForwardChains(reader).flatMap((chain) => {
      const rules = new ChainRules(reader, chain.table);
      let reason: string | undefined;
      const dropped = packets.filter((packet) => {
        if (chain.table.family !== 'inet' && chain.table.family !== packet.family) return false;
        if (deadline.passed()) return false;
        const { verdict, by } = verdictIn(rules, chain, packet);
        if (verdict !== 'dropped') return false;
        reason ??= reasonText(rules, by);
        return true;
      });
      const program = iptablesProgram(chain.table, chain.name);
      return dropped.length === 0
        ? []
        : [{ ...chain, reason: reason ?? 'policy drop', packets: dropped, program }];
    }),
  );
}

/** Chain FORWARD of iptables-legacy, where its table filter is in use. */
function legacyForwardDrops(packets: readonly KnownPacket[]): DroppingChain[] {
  return (['ipv4', 'ipv6'] as const).flatMap((family) => {
    const filter = legacyFilter(family, { complete: true });
    if (filter === undefined) return [];
    let reason: string | undefined;
    const dropped = packets.filter((packet) => {
      if (packet.family !== FAMILIES[family]) return false;
      const { verdict, by } = followForward(filter, packet, (rule) =>
        isUnmanaged(rule) ? rule.unmanaged : ruleText(rule),
      );
      if (verdict !== 'dropped') return false;
      reason ??= by;
      return true;
    });
    if (dropped.length === 0) return [];
    return [
      {
        table: { family: FAMILIES[family], name: 'filter' },
        name: 'FORWARD',
        policy: filter.policies.get('FORWARD') ?? 'accept',
        reason: reason ?? 'policy drop',
        packets: dropped,
        program: programOf(family, 'legacy'),
      },
    ];
  });
}

const FAMILIES = { ipv4: 'ip', ipv6: 'ip6' } as const;
const PROGRAMS = { ip: 'iptables', ip6: 'ip6tables' } as const;

function iptablesProgram({ family, name: table }: NftTable, chain: string): string | undefined {
  return (family === 'ip' || family === 'ip6') && table === 'filter' && chain === 'FORWARD'
    ? programOf(family === 'ip' ? 'ipv4' : 'ipv6', 'nft')
    : undefined;
}

/** `iptables` if the host's `iptables` is this variant, else the variant's own name, such as `iptables-legacy`. */
function programOf(family: Family, variant: IptablesVariant): string {
  const program = PROGRAMS[FAMILIES[family]];
  return findTools(family)?.variant === variant ? program : `${program}-${variant}`;
}

function reasonText({ reader, table }: ChainRules, by: Decider | undefined): string {
  if (by === undefined || by === 'policy') return 'policy drop';
  const rule = reader.rules({ table, name: by.chain }).find(({ handle }) => handle === by.handle);
  const family: Family = table.family === 'ip6' ? 'ipv6' : 'ipv4';
  const decoded =
    rule === undefined || table.family === 'inet' ? undefined : decodeRule(family, rule.expressions);
  return decoded === undefined
    ? `rule with handle ${by.handle} of chain ${by.chain}`
    : `rule "-A ${by.chain} ${ruleText(decoded)}"`;
}

function describe(chain: DroppingChain, subnets: readonly string[]): ForwardDrop {
  const [first] = chain.packets;
  const more = chain.packets.length > 1 ? ` and ${chain.packets.length - 1} more` : '';
  const where =
    chain.program === undefined
      ? `chain ${chain.name} of table ${chain.table.family} ${chain.table.name}`
      : `chain ${chain.name} of ${chain.program}`;
  const commands = [...new Set(chain.packets.flatMap((packet) => command(chain, packet, subnets)))];
  const what = `drops ${first === undefined ? 'packets' : packetText(first)}${more} (${chain.reason})`;
  return { where, what, commands };
}

/** `tcp packets to 172.26.64.5:80`, `packets from 172.26.64.5`, `replies to 172.26.64.5`. */
function packetText({ source, destination, destinationPort, protocol, state, family }: KnownPacket): string {
  const what = `${protocol === undefined ? '' : `${protocol} `}${state === 'established' ? 'replies' : 'packets'}`;
  if (destination === undefined) return source === undefined ? what : `${what} from ${source}`;
  if (destinationPort === undefined) return `${what} to ${destination}`;
  return `${what} to ${family === 'ip6' ? `[${destination}]` : destination}:${destinationPort}`;
}

function command(chain: DroppingChain, packet: KnownPacket, subnets: readonly string[]): string[] {
  const { source, destination, state, family, translated } = packet;
  const address = destination ?? source;
  if (address === undefined) return [];
  const side = destination === undefined ? 'source' : 'destination';
  const network = subnetOf(address, subnets) ?? address;
  if (translated === true) return [acceptPublished(chain, family, network)];
  if (chain.program !== undefined) {
    const match = state === 'established' ? ' -m conntrack --ctstate RELATED,ESTABLISHED' : '';
    return [`${chain.program} -I FORWARD ${side === 'source' ? '-s' : '-d'} ${network}${match} -j ACCEPT`];
  }
  if (chain.table.name === 'firewalld') return [`firewall-cmd --zone=trusted --add-source=${network}`];
  const match = state === 'established' ? ' ct state established,related' : '';
  return [
    `nft insert rule ${chain.table.family} ${chain.table.name} ${chain.name} ` +
      `${family} ${side === 'source' ? 'saddr' : 'daddr'} ${network}${match} accept`,
  ];
}

/** Both directions of connections to published ports, and nothing else. */
function acceptPublished(
  { table, name, program }: DroppingChain,
  family: KnownPacket['family'],
  network: string,
): string {
  return program === undefined
    ? `nft insert rule ${table.family} ${table.name} ${name} ct status dnat ct reply ${family} saddr ${network} accept`
    : `${program} -I FORWARD -m conntrack --ctstate DNAT --ctreplsrc ${network} -j ACCEPT`;
}

function subnetOf(address: string, subnets: readonly string[]): string | undefined {
  const parsed = parseAddress(address);
  if (parsed === undefined) return undefined;
  return subnets.find((subnet) => {
    const cidr = parseCidr(subnet);
    return cidr?.address.family === parsed.family && containsAddress(cidr, parsed);
  });
}
