import type { NetlinkRequest } from '../../shared/kernel/netlink/message.ts';
import {
  addChain,
  addElements,
  deleteChain,
  deleteElements,
  flushChain,
  ruleRequest,
} from '../../shared/packetfilter/nftables/messages.ts';
import type { NftChain, NftElement } from '../../shared/packetfilter/nftables/model.ts';
import type { NftReader, StandingRule } from '../../shared/packetfilter/nftables/reader.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import { keyText, tableOf, type PortKey } from './nftables-objects.ts';

/**
 * Where a port leads. Nearly always its map element says it: to one container's chain. A port that several chains want (one
 * container on several networks, or "portConflict": "reference") leads to a chain of its own, which asks them in the order in
 * which they came; whoever is first has the port until its DEL.
 *
 *     map ports             tcp . 8080 : jump shared/tcp/8080
 *     shared/tcp/8080       jump CNI-DN-<first>    comment "CNI-DN-<first>"
 *                           jump CNI-DN-<second>   comment "CNI-DN-<second>"
 */
export interface PortState {
  /** Containers' chains in the order in which they are asked; none: the port is free. */
  readonly chains: readonly string[];
  /** The rules of the port's own chain, if it has one. */
  readonly jumps: readonly StandingRule[] | undefined;
}

/** In the order of the ports. */
export function portStates(view: NftReader, family: Family, ports: readonly PortKey[]): PortState[] {
  const states = new Map<PortKey, PortState>();
  for (const together of Map.groupBy(ports, ({ set }) => set.name).values()) {
    const [{ set } = {}] = together;
    if (set === undefined) continue;
    const standing = view.elementsAt(
      set,
      together.map(({ key }) => key),
    );
    for (const [at, port] of together.entries())
      states.set(port, portState(view, family, port, standing[at]?.chain));
  }
  return ports.map((port) => states.get(port) ?? FREE);
}

const FREE: PortState = { chains: [], jumps: undefined };

function portState(view: NftReader, family: Family, port: PortKey, chain: string | undefined): PortState {
  if (chain === undefined) return FREE;
  const shared = sharedChain(family, port);
  if (chain !== shared.name) return { chains: [chain], jumps: undefined };
  const jumps = view.rules(shared);
  return { chains: jumps.flatMap(({ comment }) => comment ?? []), jumps };
}

/** A port that must not lead to a chain any more. */
export interface Way {
  readonly port: PortKey;
  readonly chain: string;
}

/** Takes these ways out, and nothing else: a port that leads elsewhere by now is somebody else's. */
export function withdrawal(view: NftReader, family: Family, ways: readonly Way[]): NetlinkRequest[] {
  const freed: PortKey[] = [];
  const rest: NetlinkRequest[] = [];
  const groups = [...Map.groupBy(ways, ({ port }) => keyText(port)).values()].flatMap((together) =>
    together.slice(0, 1).map(({ port }) => ({ port, leaving: new Set(together.map(({ chain }) => chain)) })),
  );
  const states = portStates(
    view,
    family,
    groups.map(({ port }) => port),
  );
  for (const [at, { port, leaving }] of groups.entries()) {
    const { chains, jumps } = states[at] ?? FREE;
    if (chains.every((chain) => leaving.has(chain))) {
      if (chains.length > 0) freed.push(port);
      if (jumps !== undefined) rest.push(...removalOf(sharedChain(family, port)));
    } else {
      const gone = jumps?.filter(({ comment = '' }) => leaving.has(comment)) ?? [];
      rest.push(...gone.map((jump) => jump.deletion()));
    }
  }
  // Elements first: a chain can go when nothing leads to it any more.
  return [...deletions(freed), ...rest];
}

/** Leads a port that leads to other chains already to this one as well, behind them. */
export function sharing(
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

/** A netlink attribute holds 64 KiB: about a thousand elements. */
export function chunks<T>(list: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(list.length / ELEMENTS_AT_ONCE) }, (_, at) =>
    list.slice(at * ELEMENTS_AT_ONCE, (at + 1) * ELEMENTS_AT_ONCE),
  );
}

const ELEMENTS_AT_ONCE = 250;

/** nft(8) takes no colon in a name: `shared/2001.db8..1/tcp/8080`. */
function sharedChain(family: Family, { key }: Pick<PortKey, 'key'>): NftChain {
  return { table: tableOf(family), name: ['shared', ...key].join('/').replaceAll(':', '.') };
}

function removalOf(chain: NftChain): NetlinkRequest[] {
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
