import type { NetlinkRequest } from '../../shared/kernel/netlink/message.ts';
import { deleteChain, flushChain } from '../../shared/packetfilter/nftables/messages.ts';
import type { NftReader } from '../../shared/packetfilter/nftables/reader.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { Released } from './backend.ts';
import type { Claim } from './mapping.ts';
import { keysOf, readRecord, tableOf } from './nftables-objects.ts';
import { withdrawal, type Way } from './nftables-sharing.ts';

export interface Removal {
  readonly requests: readonly NetlinkRequest[];
  readonly released: readonly (Claim & Released)[];
}

/**
 * Containers' chains and the ways that lead to them. A chain itself says which ones: nothing is listed but its own few rules.
 * @param also further ways to be taken out in the same transaction
 */
export function removal(
  view: NftReader,
  family: Family,
  names: readonly string[],
  also: readonly Way[] = [],
): Removal {
  const chains = names.map((name) => ({ table: tableOf(family), name })).filter((one) => view.hasChain(one));
  const records = chains.map(({ name }) => ({ name, claims: claimsOf(view, family, name) }));
  const ways = records.flatMap(({ name, claims }) => waysOf(family, name, claims));
  return {
    requests: [
      ...withdrawal(view, family, [...ways, ...also]),
      ...chains.flatMap((chain) => [flushChain(chain), deleteChain(chain)]),
    ],
    released: records.flatMap(({ claims }) => claims),
  };
}

/** What a container's chain says that it leads where. */
export function claimsOf(view: NftReader, family: Family, name: string): (Claim & Released)[] {
  return view.rules({ table: tableOf(family), name }).flatMap(({ comment }) => readRecord(comment) ?? []);
}

export function waysOf(family: Family, chain: string, claims: readonly Claim[]): Way[] {
  return claims.flatMap((claim) => keysOf(claim, family)).map((port) => ({ port, chain }));
}
