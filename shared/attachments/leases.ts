import { readdirSync } from 'node:fs';
import { formatAddress, parseAddress } from '../net/address.ts';
import { DEFAULT_DATA_DIR } from '../ipam/config.ts';
import { readLease, scanStore } from '../ipam/scan.ts';

/**
 * An address that host-local, ours or the reference's, keeps reserved. Looked for where it keeps leases unless `ipam.dataDir` says
 * otherwise, which chained plugins are not told.
 */
export interface Leased {
  readonly network: string;
  readonly containerId: string;
  /** Missing in files of old releases. */
  readonly ifname: string | undefined;
  readonly address: string;
}

/** Who holds this address, in every network. Reads one file per network. */
export function leasesOfAddress(address: string): Leased[] {
  const parsed = parseAddress(address);
  if (parsed === undefined) return [];
  const text = formatAddress(parsed);
  return networks().flatMap((network) => {
    const lease = readLease(`${DEFAULT_DATA_DIR}/${network}/${text}`);
    return 'containerId' in lease ? [{ network, ...ownerOf(lease), address: text }] : [];
  });
}

/** Every lease of a network. Reads all of its files. */
export function leasesOfNetwork(network: string): Leased[] {
  return scanStore(`${DEFAULT_DATA_DIR}/${network}`).leases.flatMap(({ address, lease }) =>
    address !== undefined && 'containerId' in lease
      ? [{ network, ...ownerOf(lease), address: formatAddress(address) }]
      : [],
  );
}

function networks(): string[] {
  try {
    return readdirSync(DEFAULT_DATA_DIR);
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw thrown;
  }
}

function ownerOf(lease: { readonly containerId: string; readonly ifname?: string }): {
  containerId: string;
  ifname: string | undefined;
} {
  return { containerId: lease.containerId, ifname: lease.ifname };
}
