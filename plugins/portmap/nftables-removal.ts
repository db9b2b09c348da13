import type { NetlinkRequest } from '../../shared/kernel/netlink/message.ts';
import { deleteChain, flushChain } from '../../shared/packetfilter/nftables/messages.ts';
import { deleteElements } from '../../shared/packetfilter/nftables/set-messages.ts';
import type { NftView } from '../../shared/packetfilter/nftables/view.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { Released } from './backend.ts';
import type { Claim } from './mapping.ts';
import { keysOf, readRecord, tableOf } from './nftables-objects.ts';

interface Removal {
  readonly requests: readonly NetlinkRequest[];
  readonly released: readonly (Claim & Released)[];
}

/**
 * A container's chain and the elements that lead to it. The chain itself says which ones: nothing is listed but its own few
 * rules. An element that leads elsewhere by now is somebody else's.
 */
export function removal(view: NftView, family: Family, name: string): Removal {
  const chain = { table: tableOf(family), name };
  if (!view.hasChain(chain)) return { requests: [], released: [] };
  const released = view.rules(chain).flatMap(({ comment }) => readRecord(comment) ?? []);
  const keys = released
    .flatMap((claim) => keysOf(claim, family))
    .filter(({ set, key }) => view.element(set, key)?.chain === name);
  const bySet = Map.groupBy(keys, ({ set }) => set.name);
  const elements = [...bySet.values()].flatMap((group) => {
    const [first] = group;
    return first === undefined
      ? []
      : chunks(group.map(({ key }) => key)).map((part) => deleteElements(first.set, part));
  });
  return { requests: [...elements, flushChain(chain), deleteChain(chain)], released };
}

/** A netlink attribute holds 64 KiB: about a thousand elements. */
export function chunks<T>(list: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(list.length / ELEMENTS_AT_ONCE) }, (_, at) =>
    list.slice(at * ELEMENTS_AT_ONCE, (at + 1) * ELEMENTS_AT_ONCE),
  );
}

const ELEMENTS_AT_ONCE = 250;
