import { readNft } from '../nftables/change.ts';
import type { NftTable } from '../nftables/model.ts';
import type { NftReader, StandingBaseChain } from '../nftables/reader.ts';
import { verdictIn } from './verdict.ts';
import type { KnownPacket } from './packet.ts';

/** A base chain of somebody's that packets do not survive, whatever other tables say. */
export interface DroppingChain {
  readonly table: NftTable;
  readonly name: string;
  readonly policy: 'accept' | 'drop';
  /** Those of the packets that are dropped there; at least one. */
  readonly packets: readonly KnownPacket[];
}

/**
 * Chains of the forward hook, outside of the tables of this suite, in which one of these packets surely ends.
 * What xtables of the legacy variant does is not seen here.
 */
export function forwardDrops(packets: readonly KnownPacket[]): DroppingChain[] {
  return readNft((view) =>
    forwardChains(view).flatMap((chain) => {
      const dropped = packets.filter(
        (packet) => concerns(chain, packet) && verdictIn(view, chain, packet).verdict === 'dropped',
      );
      return dropped.length === 0 ? [] : [{ ...chain, packets: dropped }];
    }),
  );
}

/** NF_INET_FORWARD */
const FORWARD = 2;

/**
 * The kernel lists base chains only among all chains of a family, and there may be one for each container's ports. So where the
 * tables are of kinds whose chains have known names, these are asked for one by one.
 */
function forwardChains(view: NftReader): StandingBaseChain[] {
  const tables = view.tables().filter(({ name }) => !name.startsWith('weft_'));
  const known = tables.map((table) => ({ table, chains: wellKnown(view, table) }));
  const others = known.filter(({ chains }) => chains === undefined).map(({ table }) => table);
  const listed = [...new Set(others.map(({ family }) => family))].flatMap((family) =>
    view.baseChains(family),
  );
  return [
    ...known.flatMap(({ chains }) => chains ?? []),
    ...listed.filter((one) => others.some(isTableOf(one))),
  ].filter(({ hook }) => hook === FORWARD);
}

/** @returns undefined for a table of an unknown kind */
function wellKnown(view: NftReader, table: NftTable): StandingBaseChain[] | undefined {
  if (NOTHING_AT_FORWARD.has(`${table.family} ${table.name}`)) return [];
  const names = KNOWN_CHAINS.get(`${table.family} ${table.name}`) ?? [];
  const chains = names.flatMap((name) => view.baseChain({ table, name }) ?? []);
  return chains.length === 0 ? undefined : chains;
}

const OF_IPTABLES = ['FORWARD', 'INPUT', 'OUTPUT', 'PREROUTING', 'POSTROUTING'];
/** Base chains of iptables-nft's tables, of which only those are there that were ever used, and firewalld's. */
const KNOWN_CHAINS: ReadonlyMap<string, readonly string[]> = new Map([
  ...['ip', 'ip6'].flatMap((family) =>
    ['filter', 'mangle', 'security'].map((name) => [`${family} ${name}`, OF_IPTABLES] as const),
  ),
  ['inet firewalld', ['filter_FORWARD']],
]);

/** Tables of translation, which hold a chain for each container. */
const NOTHING_AT_FORWARD: ReadonlySet<string> = new Set([
  'ip nat',
  'ip6 nat',
  'ip raw',
  'ip6 raw',
  'ip cni_hostport',
  'ip6 cni_hostport',
  'inet cni_plugins_masquerade',
]);

function isTableOf(chain: StandingBaseChain): (table: NftTable) => boolean {
  return ({ family, name }) => family === chain.table.family && name === chain.table.name;
}

function concerns({ table }: StandingBaseChain, { family }: KnownPacket): boolean {
  return table.family === 'inet' || table.family === family;
}
