import type { Trace } from '../../shared/attachments/leftover.ts';
import { addressFromBytes, formatAddress } from '../../shared/net/address.ts';
import { hasNftables, readNft } from '../../shared/packetfilter/nftables/change.ts';
import { containersSet, ownerOfComment } from './nftables/objects.ts';
import { FAMILIES } from './plan.ts';

/** Elements of the sets of containers. Rules of iptables and sources of firewalld name an address only: DEL finds them by those of the container. */
export function traces(): Trace[] {
  if (!hasNftables()) return [];
  return readNft((reader) =>
    FAMILIES.map(containersSet).flatMap((set) =>
      reader.elements(set).flatMap(({ comment, key }): Trace[] => {
        const owner = ownerOfComment(comment);
        const address = addressFromBytes(key);
        if (owner === undefined || address === undefined) return [];
        const text = formatAddress(address);
        return [
          {
            ...owner,
            what: `element ${text} of set inet ${set.table.name} ${set.name}`,
            namespace: 'unknown',
            addresses: () => [text],
          },
        ];
      }),
    ),
  );
}
