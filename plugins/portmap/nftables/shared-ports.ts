import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import {
  addChain,
  addElements,
  deleteChain,
  deleteElements,
  flushChain,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import type { NftChain, NftElement } from '../../../shared/packetfilter/nftables/model.ts';
import type { NftReader, StandingRule } from '../../../shared/packetfilter/nftables/reader.ts';
import type { Family } from '../../../shared/packetfilter/ruleset.ts';
import { keyText, tableOf, type PortKey } from './plan.ts';

/**
 * The containers' chains that a port's map element jumps to: nearly always one. A port with several mappings (one container on several
 * networks, or "portConflict": "reference") has a shared chain, which jumps to their chains in the order of their ADDs: the first one gets
 * the port until its DEL.
 *
 *     map ports             tcp . 8080 : jump shared/tcp/8080
 *     shared/tcp/8080       jump CNI-DN-<first>    comment "CNI-DN-<first>"
 *                           jump CNI-DN-<second>   comment "CNI-DN-<second>"
 */
export interface PortState {
  /** Containers' chains in the order of evaluation; empty: the port is free. */
  readonly chains: readonly string[];
  /** The rules of the port's shared chain; undefined when it has none. */
  readonly jumps: readonly StandingRule[] | undefined;
}

/** The states in the order of the ports. */
export function portStates(reader: NftReader, family: Family, ports: readonly PortKey[]): PortState[] {
  const present = reader.elementsAt(ports);
  return ports.map((port, at) => portState(reader, family, port, present[at]?.chain));
}

const FREE: PortState = { chains: [], jumps: undefined };

function portState(reader: NftReader, family: Family, port: PortKey, chain: string | undefined): PortState {
  if (chain === undefined) return FREE;
  const shared = sharedChain(family, port);
  if (chain !== shared.name) return { chains: [chain], jumps: undefined };
  const jumps = reader.rules(shared);
  return { chains: jumps.flatMap(({ comment }) => comment ?? []), jumps };
}

/** The jump from one port to one container's chain. */
export interface MapEntry {
  readonly port: PortKey;
  readonly chain: string;
}

/** Removes exactly these jumps: a port may jump to other containers' chains as well, or by now only to theirs. */
export function detachChains(
  reader: NftReader,
  family: Family,
  entries: readonly MapEntry[],
): NetlinkRequest[] {
  const freed: PortKey[] = [];
  const chainRequests: NetlinkRequest[] = [];
  const groups = [...Map.groupBy(entries, ({ port }) => keyText(port)).values()].flatMap((together) =>
    together.slice(0, 1).map(({ port }) => ({ port, detached: new Set(together.map(({ chain }) => chain)) })),
  );
  const states = portStates(
    reader,
    family,
    groups.map(({ port }) => port),
  );
  for (const [at, { port, detached }] of groups.entries()) {
    const { chains, jumps } = states[at] ?? FREE;
    if (chains.every((chain) => detached.has(chain))) {
      if (chains.length > 0) freed.push(port);
      if (jumps !== undefined) chainRequests.push(...chainRemoval(sharedChain(family, port)));
    } else {
      const gone = jumps?.filter(({ comment = '' }) => detached.has(comment)) ?? [];
      chainRequests.push(...gone.map((jump) => jump.deletion()));
    }
  }
  // Elements first: the kernel deletes a chain only when nothing jumps to it.
  return [...deletions(freed), ...chainRequests];
}

/** Lets a port that is in use jump to this chain too, after the others. */
export function addToShared(
  family: Family,
  element: NftElement,
  own: string,
  { chains, jumps }: PortState,
): NetlinkRequest[] {
  const shared = sharedChain(family, element);
  const jump = (chain: string): NetlinkRequest =>
    ruleRequest({ chain: shared, statements: [{ kind: 'jump', chain }], comment: chain });
  if (jumps !== undefined) return [jump(own)];
  const { set, key } = element;
  const replaced: NftElement = { set, key, data: { kind: 'jump', chain: shared.name } };
  return [
    addChain(shared),
    ...[...chains, own].map(jump),
    deleteElements(set, [key]),
    addElements(set, [replaced]),
  ];
}

/** A netlink attribute holds 64 KiB, about a thousand elements. */
export function chunks<T>(list: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(list.length / ELEMENTS_PER_REQUEST) }, (_, at) =>
    list.slice(at * ELEMENTS_PER_REQUEST, (at + 1) * ELEMENTS_PER_REQUEST),
  );
}

const ELEMENTS_PER_REQUEST = 250;

/** `shared/2001.db8..1/tcp/8080`: nft(8) accepts no colon in a name. */
function sharedChain(family: Family, { key }: Pick<PortKey, 'key'>): NftChain {
  return { table: tableOf(family), name: ['shared', ...key].join('/').replaceAll(':', '.') };
}

function chainRemoval(chain: NftChain): NetlinkRequest[] {
  return [flushChain(chain), deleteChain(chain)];
}

function deletions(ports: readonly PortKey[]): NetlinkRequest[] {
  const bySet = Map.groupBy(ports, ({ set }) => set.name);
  return [...bySet.values()].flatMap((group) => {
    const [first] = group;
    return first === undefined
      ? []
      : chunks(group.map(({ key }) => key)).map((part) => deleteElements(first.set, part));
  });
}
