import { allocate, release } from './allocate.ts';
import { Catalog } from './catalog.ts';
import { configureIpam } from './config.ts';
import { formatLease, ownerKey, parseLease } from './lease.ts';
import { formatAddress, parseAddress, type IpAddress } from '../cni/address.ts';
import type { Interval } from './ring.ts';
import { requestedPerSet } from './requested.ts';
import { MemorySlots } from './slots.ts';
import type { FoundLease } from './scan.ts';
import type { LeaseStore, Owner } from './store.ts';

/**
 * Goes once through what an ADD and a DEL compute, on a store that is not there, while the startup snapshot is built: the
 * functions are then in the snapshot already compiled. Touches no file.
 */
export function prewarmIpam(): void {
  const config = configureIpam({
    ipam: {
      ranges: [[{ subnet: '172.26.64.0/20' }], [{ subnet: 'fd00::/64' }]],
      routes: [{ dst: '0.0.0.0/0' }],
    },
  });
  const owner = { containerId: 'b9cb6fb5-bc8a-c3a1-6ff9-5d6d4d4c1f3a', ifname: 'eth0' };
  const sets = config.rangeSets;
  const requested = requestedPerSet({ config, environment: {} });
  const store = new PaperStore();
  for (const at of [0, 0, 1]) {
    const { address } = allocate(store, { sets, at, requested: requested[at], owner, warn: () => undefined });
    if (at === 1) release(store, owner, address);
  }
}

/** What of a store can be had without files. */
class PaperStore implements LeaseStore {
  readonly #catalog = new Catalog(new MemorySlots(256));

  leasesOf({ containerId, ifname }: Owner): { exact: FoundLease[]; legacy: FoundLease[] } {
    const text = formatLease(containerId, ifname);
    const exact = this.#catalog.addressesOf(text).map((address): FoundLease => {
      return { path: formatAddress(address), address, lease: parseLease(text), isFile: true };
    });
    return { exact, legacy: [] };
  }

  create(address: IpAddress, { containerId, ifname }: Owner): boolean {
    this.#catalog.add(address, formatLease(containerId, ifname));
    return true;
  }

  remove({ address, lease }: FoundLease): void {
    if (address !== undefined) this.#catalog.remove(address, ownerKey(lease));
  }

  firstFree(interval: Interval): IpAddress | undefined {
    return this.#catalog.firstFree(interval);
  }

  lastReserved(): IpAddress | undefined {
    return parseAddress('172.26.64.7');
  }

  leases(): readonly FoundLease[] {
    return [];
  }

  adopt(): void {}
  renew(): void {}
  setLastReserved(): void {}
  refresh(): void {}
}
