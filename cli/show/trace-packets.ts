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
import { findProgram, runProgram } from '../../shared/process/run-program.ts';
import { portsText, type AttachmentView } from '../attachments/view.ts';

/** Followed by the process id: several traces at once have a table each. */
const TABLE_PREFIX = 'weft_trace_';
const SECONDS = 10;

/**
 * Marks packets of the attachment in a table of this process that only exists while the process has its netlink connection, also if it is killed
 * (kernel 5.12 and newer), and prints what nft(8) reports of them.
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
  const table: NftTable = { family: 'inet', name: `${TABLE_PREFIX}${process.pid}` };
  connection.commit([
    addOwnedTable(table),
    ...chains(table).flatMap((chain) => [
      addChain(chain),
      ...selections(view).map((match) => marking(chain, match)),
    ]),
  ]);
  const published = ports.length === 0 ? '' : ` and to published ports ${portsText(ports)}`;
  writeAll(2, `following packets of ${addresses.join(', ')}${published} for ${SECONDS} s\n`);
  const { stdout } = runProgram(timeout, ['--signal=INT', String(SECONDS), nft, 'monitor', 'trace'], {
    timeoutMs: (SECONDS + 5) * 1000,
  });
  writeAll(1, traceText(stdout, table));
  return 0;
}

/** First of all chains of their hooks: packets that arrive, and those of the host's own processes. */
function chains(table: NftTable): NftChain[] {
  return (['prerouting', 'output'] as const).map((hook) => ({
    table,
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
    ...encodeStatements(chain.table.family, match),
    immediate(Uint8Array.of(1), REGISTER_1),
    metaStore(MetaKey.nftrace),
  ];
  return addRule(chain, { expressions }, 'last');
}

/**
 * One paragraph for each packet that a rule of `table` has marked: its header, then the rule or policy of each verdict. Pure, for tests. nft(8) also
 * reports what other programs have marked. The kernel uses an id again for later packets, and gives some packets another one on their way: these
 * have the same header except for what a router changes.
 */
export function traceText(monitored: string, table: NftTable): string {
  const packets: Packet[] = [];
  const byId = new Map<string, Packet>();
  for (const line of monitored.split('\n')) {
    const [, id = '', rest] = /^trace id (\S+) (.*)$/.exec(line) ?? [];
    if (rest === undefined) continue;
    const isOwn = rest.startsWith(`${table.family} ${table.name} `);
    const isOther = !isOwn && rest.startsWith(`inet ${TABLE_PREFIX}`);
    const header = / packet: (.*)$/.exec(rest)?.[1];
    if (header === undefined) {
      const packet = byId.get(id);
      if (!isOwn && !isOther) packet?.lines.push(`  ${verdictText(rest)}`);
      else if (isOwn && packet !== undefined && / rule /.test(rest)) packet.isMarked = true;
      continue;
    }
    const latest = header.replaceAll(ROUTED, '');
    const candidate = byId.get(id) ?? packets.findLast((one) => one.latest === latest);
    // Each trace sees a packet once, so a header in a trace's table begins another packet, unless it is the same.
    const isNew = isOwn || (isOther && candidate?.latest !== latest);
    const known = isNew ? undefined : candidate;
    const packet = known ?? { lines: [headerText(header)], latest, isMarked: false };
    if (known === undefined) packets.push(packet);
    packet.latest = latest;
    byId.set(id, packet);
  }
  const marked = packets.filter(({ isMarked }) => isMarked);
  if (marked.length === 0) return 'no packets\n';
  return marked.map(({ lines }) => `${lines.join('\n')}\n`).join('\n');
}

interface Packet {
  readonly lines: string[];
  /** Its latest header, without what a router changes. */
  latest: string;
  /** By a rule of the own table. */
  isMarked: boolean;
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
