import type { NftChain, NftStatement, NftTable } from '../../shared/packetfilter/nftables/model.ts';
import { CniCode, CniError } from '../../shared/cni/errors.ts';
import { writeAll } from '../../shared/kernel/stdio.ts';
import { findTools } from '../../shared/packetfilter/iptables/tools.ts';
import { NftConnection } from '../../shared/packetfilter/nftables/connection.ts';
import { addChain, addOwnedTable, addRule } from '../../shared/packetfilter/nftables/messages.ts';
import { encodeStatements } from '../../shared/packetfilter/nftables/encode.ts';
import { metaStore, immediate, MetaKey, REGISTER_1 } from '../../shared/packetfilter/nftables/expressions.ts';
import { findProgram, runProgram } from '../../shared/process/run.ts';
import type { AttachmentView } from '../attachments/view.ts';

const TABLE: NftTable = { family: 'inet', name: 'weft_trace' };
const SECONDS = 10;

/**
 * Marks packets of the attachment in a table that only exists while this process has its netlink connection, also if it is killed (kernel 5.12
 * and newer), and prints what nft(8) reports of them.
 * @returns the exit code
 */
export function tracePackets({ addresses }: AttachmentView): number {
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
      ...addresses.flatMap((address) => rulesFor(chain, address)),
    ]),
  ]);
  writeAll(2, `following packets of ${addresses.join(', ')} for ${SECONDS} s\n`);
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

function rulesFor(chain: NftChain, address: string): ReturnType<typeof addRule>[] {
  return (['saddr', 'daddr'] as const).map((side) => {
    const match: NftStatement[] = [{ kind: 'address', side, cidr: address }];
    const expressions = [
      ...encodeStatements(TABLE.family, match),
      immediate(Uint8Array.of(1), REGISTER_1),
      metaStore(MetaKey.nftrace),
    ];
    return addRule(chain, { expressions }, 'last');
  });
}

/** One paragraph for each packet: its header, then the rule or policy of each verdict. Pure, for tests. */
export function traceText(monitored: string): string {
  const packets = new Map<string, string[]>();
  for (const line of monitored.split('\n')) {
    const [, id, rest] = /^trace id (\S+) (.*)$/.exec(line) ?? [];
    if (id === undefined || rest === undefined || rest.includes(`${TABLE.family} ${TABLE.name} `)) {
      const header = /^trace id (\S+) inet weft_trace \S+ packet: (.*)$/.exec(line);
      if (header?.[1] !== undefined)
        packets.set(header[1], [headerText(header[2] ?? ''), ...(packets.get(header[1]) ?? [])]);
      continue;
    }
    if (!rest.includes(' packet: ')) packets.set(id, [...(packets.get(id) ?? []), `  ${rest}`]);
  }
  if (packets.size === 0) return 'no packets\n';
  return [...packets.values()].map((lines) => `${lines.join('\n')}\n`).join('\n');
}

/** Without link-layer addresses and what rarely decides. */
function headerText(header: string): string {
  return header
    .replace(/ ether saddr \S+ ether daddr \S+/, '')
    .replace(/ (ip|ip6) dscp .*?(?= (ip protocol|ip6 nexthdr))/, '')
    .replace(/ ip6? length \d+/, '')
    .replace(/ @th\S+ \S+/, '')
    .trim();
}
