import { RESULTS_DIR } from '../../shared/attachments/cached-results.ts';
import { scanStore } from '../../shared/attachments/lease-files.ts';
import { inRange, type RangeSet } from '../../shared/ipam/ranges.ts';
import { compareAddresses, sameAddress, type IpAddress } from '../../shared/net/address.ts';
import type { Check, Finding } from './finding.ts';
import type { Host } from './examined-host.ts';

export const CAPACITY_CHECKS: readonly Check<Host>[] = [
  { name: 'free addresses', group: 'capacity', run: ranges },
  { name: 'leases and cached results', group: 'capacity', run: leftovers },
  { name: 'disk space', group: 'capacity', run: disk },
];

function ranges(host: Host): Finding[] {
  return host.networks().flatMap(({ name, rangeSets, store }): Finding[] => {
    const leased = store === '' ? [] : scanStore(store).leases.flatMap(({ address }) => address ?? []);
    return rangeSets.flatMap((set): Finding[] => {
      const total = sizeOf(set);
      const used = leased.filter((address) => set.some((range) => inRange(range, address))).length;
      const free = total - BigInt(used);
      if (free > 0n && BigInt(used) * 10n < total * 9n) return [];
      return [
        {
          id: free <= 0n ? 'range-full' : 'range-nearly-full',
          what: `${used} of ${total} addresses are leased`,
          where: `network ${name}, ${store}`,
          remedy: 'weft gc; then stop allocations, or give the network a larger subnet',
        },
      ];
    });
  });
}

/** Addresses that can be leased: without the gateway. */
function sizeOf(set: RangeSet): bigint {
  return set.reduce((sum, range) => {
    const hasGateway = inRange(range, range.gateway) && isBetween(range.gateway, range.first, range.last);
    return sum + range.last.value - range.first.value + 1n - (hasGateway ? 1n : 0n);
  }, 0n);
}

function isBetween(address: IpAddress, first: IpAddress, last: IpAddress): boolean {
  return (
    sameAddress(address, first) ||
    (compareAddresses(address, first) > 0 && compareAddresses(address, last) <= 0)
  );
}

function leftovers(host: Host): Finding[] {
  const attachments = host.attachments();
  const gone = attachments.filter(({ state }) => state === 'gone');
  const found: Finding[] = [];
  for (const [network, own] of Map.groupBy(gone, (one) => one.network)) {
    const leases = own.flatMap(({ leaseFiles }) => leaseFiles);
    const results = own.flatMap(({ cacheFile }) => cacheFile ?? []);
    if (leases.length > 0)
      found.push({
        id: 'leases-stale',
        what: `${counted(leases.length, 'address')} leased to ${counted(own.length, 'container')} that ${own.length === 1 ? 'is' : 'are'} gone`,
        where: `network ${network}: ${some(leases)}`,
        remedy: 'weft gc',
      });
    if (results.length > 0)
      found.push({
        id: 'results-stale',
        what: `${counted(results.length, 'cached result')} of containers that are gone`,
        where: `network ${network}: ${some(results)}`,
        remedy: 'weft gc',
      });
  }
  const known = new Set(attachments.map(({ cacheFile }) => cacheFile));
  const damaged = host
    .names(RESULTS_DIR)
    .map((name) => `${RESULTS_DIR}/${name}`)
    .filter((file) => !known.has(file));
  return [
    ...found,
    ...damaged.map((file): Finding => ({
      id: 'results-unreadable',
      what: `${file} is no cached result`,
      where: file,
      remedy: `rm ${file}; if its allocation runs: nomad alloc restart`,
    })),
  ];
}

function disk(host: Host): Finding[] {
  const folders = new Set(
    [...host.networks().map(({ store }) => store), RESULTS_DIR].filter((one) => one !== ''),
  );
  return [...folders].flatMap((folder): Finding[] => {
    const space = [folder, folder.slice(0, folder.lastIndexOf('/'))]
      .map((path) => host.space(path))
      .find((one) => one !== undefined);
    if (space === undefined) return [];
    const { freeBytes, totalBytes, freeInodes, totalInodes } = space;
    const noSpace = totalBytes > 0 && freeBytes < LEAST_BYTES;
    const noInodes = totalInodes > 0 && freeInodes < LEAST_INODES;
    if (!noSpace && !noInodes) return [];
    return [
      {
        id: 'disk-full',
        what: noSpace ? `${Math.floor(freeBytes / 1024)} KiB are free` : `${freeInodes} inodes are free`,
        where: folder,
        remedy: `find what fills the file system: df -h ${folder}; df -i ${folder}; weft gc removes stale files`,
      },
    ];
  });
}

/** A cached result takes some kilobytes, a lease one block. */
const LEAST_BYTES = 512 * 1024;
const LEAST_INODES = 64;

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : noun.endsWith('s') ? 'es' : 's'}`;
}

/** The first ones. */
function some(paths: readonly string[]): string {
  return `${paths.slice(0, 3).join(', ')}${paths.length > 3 ? ` and ${paths.length - 3} more` : ''}`;
}
