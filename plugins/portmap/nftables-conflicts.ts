import { formatAddress, parseCidr } from '../../shared/net/address.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import type { NftReader } from '../../shared/packetfilter/nftables/reader.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { Forwarding } from './backend.ts';
import type { Conflict } from './holders.ts';
import { claimOf, collide, type Claim } from './mapping.ts';
import { containerChain, keysOf, ownerOf, tableOf, type PortKey } from './nftables-objects.ts';
import { claimsOf } from './nftables-removal.ts';
import { portStates } from './nftables-sharing.ts';

/** RT_SCOPE_LINK of linux/rtnetlink.h */
const LINK_SCOPE = 253;

/** Other containers' chains that lead away a port this one wants, found by looking up those very ports. */
export function conflictsOf(view: NftReader, forwarding: Forwarding): (Conflict & { chain: string })[] {
  const { family } = forwarding;
  // Most hosts have mappings of one backend only, and this may be asked about ten thousand ports.
  if (!view.hasTable(tableOf(family))) return [];
  const own = containerChain(forwarding, family).name;
  const claims = forwarding.mappings.map(claimOf);
  const ports = claims.flatMap((claim) => keysInTheWay(claim, family));
  const chains = new Set(portStates(view, family, ports).flatMap((state) => state.chains));
  chains.delete(own);
  return [...chains].flatMap((chain) => {
    const holder = ownerOf(view.chainComment({ table: tableOf(family), name: chain }));
    if (holder?.containerId === forwarding.containerId) return [];
    const held = claimsOf(view, family, chain).find((one) => claims.some((claim) => collide(one, claim)));
    return held === undefined ? [] : [{ ...held, chain, holder }];
  });
}

/** A port of one address meets the same port of all addresses, and the other way round. */
function keysInTheWay(claim: Claim, family: Family): PortKey[] {
  const everywhere = { ...claim, address: undefined };
  const single =
    claim.address === undefined ? hostAddresses(family).map((address) => ({ ...claim, address })) : [claim];
  return [everywhere, ...single].flatMap((one) => keysOf(one, family));
}

/** Addresses that somebody may have mapped a port of; those of one link only cannot be. */
function hostAddresses(family: Family): string[] {
  using rtnetlink = Rtnetlink.open();
  return addresses(rtnetlink, { family })
    .filter(({ scope }) => scope !== LINK_SCOPE)
    .flatMap(({ address }) => {
      const parsed = parseCidr(address);
      return parsed === undefined ? [] : [formatAddress(parsed.address)];
    });
}
