import type { Trace } from '../../shared/attachments/leftover.ts';
import { commentOf, isUnmanaged } from '../../shared/packetfilter/compare.ts';
import { attachmentOfComment } from '../../shared/packetfilter/names.ts';
import { hasNftables, readNft } from '../../shared/packetfilter/nftables/change.ts';
import { driversWithRules } from '../../shared/packetfilter/select.ts';
import { forwardedBy } from './iptables/check.ts';
import { DNAT_CHAIN } from './iptables/plan.ts';
import { ownerOf, tableOf } from './nftables/plan.ts';
import { forwardedBy as forwardedByNft } from './nftables/requests.ts';
import { FAMILIES } from './plan.ts';

/** Port mappings, by the comments of their rules and chains. */
export function traces(): Trace[] {
  return [...inIptables(), ...(hasNftables() ? inNftables() : [])];
}

function inIptables(): Trace[] {
  return driversWithRules().flatMap((driver) =>
    FAMILIES.filter((family) => driver.supports(family)).flatMap((family) => {
      const state = driver.read(family, 'nat', [DNAT_CHAIN]);
      return (state.chains.get(DNAT_CHAIN) ?? []).flatMap((rule): Trace[] => {
        if (isUnmanaged(rule) || rule.target.kind !== 'jump') return [];
        const owner = attachmentOfComment(commentOf(rule) ?? '');
        const { chain } = rule.target;
        if (owner === undefined) return [];
        return [
          {
            ...owner,
            what: `chain ${chain} of table nat (${family}, ${driver.name})`,
            namespace: 'unknown',
            addresses: () => forwardedBy(state, chain).map(({ containerAddress }) => containerAddress),
          },
        ];
      });
    }),
  );
}

function inNftables(): Trace[] {
  return readNft((reader) =>
    FAMILIES.flatMap((family) => {
      const table = tableOf(family);
      return reader.chains(table).flatMap(({ name, comment }): Trace[] => {
        const owner = ownerOf(comment);
        if (owner === undefined) return [];
        return [
          {
            ...owner,
            what: `chain ${name} of table ${table.family} ${table.name}`,
            namespace: 'unknown',
            addresses: () =>
              readNft((again) => forwardedByNft(again, family, name)).map(
                ({ containerAddress }) => containerAddress,
              ),
          },
        ];
      });
    }),
  );
}
