import { lstatSync } from 'node:fs';
import { formatAddress } from '../net/address.ts';
import { bootBegan } from './boot.ts';
import type { FoundLease } from '../attachments/lease-files.ts';
import { addressesInUse } from '../attachments/namespaces.ts';

/**
 * Those of the leases that nobody can be using, with the reason. Asked only when a range has run out.
 *
 * - Text that is no lease: no DEL could ever release it.
 * - Written before this boot: a network namespace does not outlive the machine's memory, so neither does its address. An ADD that
 *   finds its own lease again renews the file's time, so a namespace made in this boot is never taken for dead. As a second
 *   proof, no network namespace that can be found may have the address.
 */
export function reclaimable(leases: readonly FoundLease[]): { found: FoundLease; why: string }[] {
  const files = leases.filter(({ isFile }) => isFile);
  const unreadable = files.filter(({ lease }) => lease.kind === 'invalid');
  const began = bootBegan();
  const old = files.filter((found) => isLease(found) && began !== undefined && isOlderThan(found, began));
  const inUse: ReadonlyMap<string, string> = old.length > 0 ? addressesInUse().byAddress : new Map();
  return [
    ...unreadable.map((found) => ({ found, why: 'its text is no lease, so no DEL could release it' })),
    ...old
      .filter(({ address }) => address !== undefined && !inUse.has(formatAddress(address)))
      .map((found) => ({ found, why: 'written before this boot, and no network namespace has the address' })),
  ];
}

function isLease({ lease }: FoundLease): boolean {
  return lease.kind === 'exact' || lease.kind === 'legacy';
}

function isOlderThan({ path }: FoundLease, time: number): boolean {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat !== undefined && stat.mtimeMs < time;
}
