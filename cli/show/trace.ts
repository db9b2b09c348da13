import type {
  NftChain,
  NftProtocol,
  NftStatement,
  NftTable,
} from '../../shared/packetfilter/nftables/model.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { writeAll } from '../../shared/kernel/stdio.ts';
import { findTools } from '../../shared/packetfilter/iptables/tools.ts';
import { NftConnection } from '../../shared/packetfilter/nftables/connection.ts';
import { addChain, addOwnedTable, addRule } from '../../shared/packetfilter/nftables/messages.ts';
import { encodeStatements } from '../../shared/packetfilter/nftables/encode.ts';
import { metaStore, immediate, MetaKey, REGISTER_1 } from '../../shared/packetfilter/nftables/expressions.ts';
import { findProgram, runProgram } from '../../shared/process/run.ts';
import { portsText, type AttachmentView } from '../attachments/view.ts';

const TABLE: NftTable = { family: 'inet', name: 'weft_trace' };
const SECONDS = 10;

/**
 * Marks packets of the attachment in a table that only exists while this process has its netlink connection, also if it is killed (kernel 5.12
 * and newer), and prints what nft(8) reports of them.
 * @returns the exit code
 */
export function tracePackets(view: AttachmentView): number {
  const { addresses, ports } = view;
  const nft = findProgram('nft');
  const timeout = findProgram('timeout');
  if (nft === undefined || timeout === undefined)
    throw new CniError(CniCode.Internal, 'a trace needs the programs nft and timeout', {
      details: 'apt install nftables coreutils',
    });
  if (findTools('ipv4')?.variant === 'legacy')
    writeAll(2, "iptables of this host is the legacy variant: its rules are not part of nft's trace\n");
  using connection = NftConnection.open();
  connection.commit([
    addOwnedTable(TABLE),
    ...chains().flatMap((chain) => [
      addChain(chain),
      ...selections(view).map((match) => marking(chain, match)),
    ]),
  ]);
  const published = ports.length === 0 ? '' : ` and to published ports ${portsText(ports)}`;
  writeAll(2, `following packets of ${addresses.join(', ')}${published} for ${SECONDS} s\n`);
  const { stdout } = runProgram(timeout, ['--signal=INT', String(SECONDS), nft, 'monitor', 'trace'], {
    timeoutMs: (SECONDS + 5) * 1000,
  });
  writeAll(1, traceText(stdout));
  return 0;
}

/** First of all chains of their hooks: packets that arrive, and those of the host's own processes. */
function chains(): NftChain[] {
  return (['prerouting', 'output'] as const).map((hook) => ({
    table: TABLE,
    name: hook,
    hook: { type: 'filter', hook, priority: -350 },
  }));
}

/** Packets from and to the attachment's addresses, and to its published ports, whose destination is the host's until DNAT. */
function selections({ addresses, ports }: AttachmentView): NftStatement[][] {
  const own = addresses.flatMap((address) =>
    (['saddr', 'daddr'] as const).map((side): NftStatement[] => [{ kind: 'address', side, cidr: address }]),
  );
  const published = ports.map(({ protocol, host, range }): NftStatement[] => [
    { kind: 'fib daddr type local' },
    { kind: 'l4proto', protocol: protocol as NftProtocol },
    { kind: 'dport', first: host, last: host + range - 1 },
  ]);
  return [...own, ...published];
}

function marking(chain: NftChain, match: readonly NftStatement[]): ReturnType<typeof addRule> {
  const expressions = [
    ...encodeStatements(TABLE.family, match),
    immediate(Uint8Array.of(1), REGISTER_1),
    metaStore(MetaKey.nftrace),
  ];
  return addRule(chain, { expressions }, 'last');
}

/**
 * One paragraph for each packet: its header, then the rule or policy of each verdict. Pure, for tests. The kernel uses an id again for later
 * packets, and gives some packets another one on their way: these have the same header except for what a router changes.
 */
export function traceText(monitored: string): string {
  const packets: { readonly lines: string[]; latest: string }[] = [];
  const byId = new Map<string, (typeof packets)[number]>();
  for (const line of monitored.split('\n')) {
    const [, id = '', rest] = /^trace id (\S+) (.*)$/.exec(line) ?? [];
    if (rest === undefined) continue;
    const isOwn = rest.startsWith(`${TABLE.family} ${TABLE.name} `);
    const header = / packet: (.*)$/.exec(rest)?.[1];
    if (header === undefined) {
      if (!isOwn) byId.get(id)?.lines.push(`  ${verdictText(rest)}`);
      continue;
    }
    const latest = header.replaceAll(ROUTED, '');
    const known = isOwn ? undefined : (byId.get(id) ?? packets.findLast((one) => one.latest === latest));
    const packet = known ?? { lines: [headerText(header)], latest };
    if (known === undefined) packets.push(packet);
    packet.latest = latest;
    byId.set(id, packet);
  }
  if (packets.length === 0) return 'no packets\n';
  return packets.map(({ lines }) => `${lines.join('\n')}\n`).join('\n');
}

/** Without counters, which nft prints as it read them before the packet. */
function verdictText(rest: string): string {
  return rest
    .replace(/ counter packets \d+ bytes \d+/, '')
    .replaceAll(/ {2,}/g, ' ')
    .trim();
}

/** What a router changes, and what nft prints in some families of tables only. */
const ROUTED =
  / ?(iif "\S+"|oif "\S+"|ether saddr \S+ ether daddr \S+|ip ttl \d+|ip6 hoplimit \d+|ip protocol \S+|ip6 nexthdr \S+)/g;

/** Without link-layer addresses and what rarely decides. */
function headerText(header: string): string {
  return header
    .replace(/ ether saddr \S+ ether daddr \S+/, '')
    .replace(/ (ip|ip6) dscp .*?(?= (ip protocol|ip6 nexthdr))/, '')
    .replace(/ ip6? length \d+/, '')
    .replace(/ @th\S+ \S+/, '')
    .trim();
}
