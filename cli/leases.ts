import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import * as z from 'zod/mini';
import { KnownAttachments, namespaceNamedAfter, USUAL_DATA_DIRS } from '../shared/attachments/attachments.ts';
import { inventory } from '../shared/attachments/inventory.ts';
import { poolsOf } from '../shared/ipam/pools.ts';
import { scanStore, type FoundLease } from '../shared/attachments/lease-files.ts';
import { formatAge, formatTable } from './terminal.ts';
import { readOptions, UsageError } from '../shared/config/command-line.ts';
import { isNetworkNamespace } from '../shared/kernel/namespace.ts';
import { linkByName } from '../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../shared/kernel/rtnetlink/rtnetlink.ts';
import { writeAll } from '../shared/kernel/stdio.ts';
import { compareAddresses, formatAddress, parseAddress } from '../shared/net/address.ts';

const HELP = `usage: weft leases [options]

Lists the addresses that host-local leases: address, container, interface, age, and whether the container still has a network.

  --data-dir FOLDER   folder of the networks' stores, repeatable (default: ${USUAL_DATA_DIRS.join(' and ')})
  --network NAME      only this network
  --json              one JSON list instead of a table

The last lines say how many addresses of each subnet are used and free, where a running attachment's configuration tells it.

state   live        a network namespace has the address
        no address  the container's namespace exists, but does not have the address
        gone        the container has no namespace: DEL or GC was not called, or the folder belongs to another machine
        not a lease the file's text names no container; the file only reserves the address

Exit status: 0 success; 1 the stores cannot be read; 2 wrong usage
`;

const OPTIONS = {
  'data-dir': { type: 'string', multiple: true },
  network: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
} as const;

export function leases(argv: readonly string[]): number {
  const { values } = readOptions(argv, OPTIONS);
  if (values.help === true) return print(HELP);
  const absent = values['data-dir']?.find((folder) => !existsSync(folder));
  if (absent !== undefined) throw new UsageError(`--data-dir: ${absent} does not exist`);
  const found = findLeases(values['data-dir'] ?? USUAL_DATA_DIRS, values.network);
  if (values.json === true) return print(`${JSON.stringify(found.map(asJson), null, 2)}\n`);
  if (found.length === 0) return print('no leases\n');
  return print(
    `${formatTable(
      ['NETWORK', 'ADDRESS', 'CONTAINER', 'INTERFACE', 'AGE', 'STATE', 'NAMESPACE'],
      found.map((lease) => [
        lease.network,
        lease.address,
        lease.container ?? '-',
        lease.ifname ?? '-',
        formatAge(lease.ageSeconds),
        lease.state,
        lease.namespace ?? '-',
      ]),
    )}${poolLines(values.network)}`,
  );
}

/** `nomad  172.26.64.0/20  3 used, 4090 free` */
function poolLines(wanted: string | undefined): string {
  const entries = inventory({ searchNamespaces: false }).filter(
    ({ network }) => wanted === undefined || network === wanted,
  );
  const rows = [...Map.groupBy(entries, ({ network }) => network)].flatMap(([network, own]) =>
    poolsOf(own).map(({ subnet, size, used }) => [
      network,
      subnet,
      String(used),
      size === null ? 'plenty' : String(size - used),
    ]),
  );
  return rows.length === 0 ? '' : `\n${formatTable(['NETWORK', 'SUBNET', 'USED', 'FREE'], rows)}`;
}

/** Of `weft leases --json`. Absent values are null, so that every entry has the same keys. */
export const leasesSchema = z.array(
  z.strictObject({
    network: z.string(),
    address: z.string(),
    container: z.nullable(z.string()),
    interface: z.nullable(z.string()),
    leasedAt: z.string(),
    ageSeconds: z.int(),
    state: z.enum(['live', 'no address', 'gone', 'not a lease']),
    namespace: z.nullable(z.string()),
    hostInterfaces: z.array(z.strictObject({ name: z.string(), exists: z.boolean() })),
    file: z.string(),
  }),
);

function asJson(lease: LeaseState): z.output<typeof leasesSchema>[number] {
  const {
    network,
    address,
    container,
    ifname,
    leasedAt,
    ageSeconds,
    state,
    namespace,
    hostInterfaces,
    file,
  } = lease;
  return {
    network,
    address,
    container: container ?? null,
    interface: ifname ?? null,
    leasedAt,
    ageSeconds,
    state,
    namespace: namespace ?? null,
    hostInterfaces: [...hostInterfaces],
    file,
  };
}

function print(text: string): number {
  writeAll(1, text);
  return 0;
}

interface LeaseState {
  readonly network: string;
  readonly address: string;
  /** Undefined if the file names none. */
  readonly container: string | undefined;
  /** Undefined for files of old releases, which name only the container. */
  readonly ifname: string | undefined;
  /** When it was last requested; ISO 8601. */
  readonly leasedAt: string;
  readonly ageSeconds: number;
  readonly state: 'live' | 'no address' | 'gone' | 'not a lease';
  /** Path of the network namespace that has the address, or that the container had when it was added. */
  readonly namespace: string | undefined;
  /** Interfaces on the host that the runtime's cached result names, and whether they still exist. */
  readonly hostInterfaces: readonly { name: string; exists: boolean }[];
  readonly file: string;
}

/** All leases of all stores, by network and address. Read-only and without locks: a lease is never half written. */
function findLeases(dataDirs: readonly string[], wanted?: string): LeaseState[] {
  const stores = dataDirs
    .flatMap(storesIn)
    .filter(({ network }) => wanted === undefined || network === wanted);
  using rtnetlink = Rtnetlink.open();
  return stores.flatMap(({ network, path }) => {
    const known = new KnownAttachments({ network, thorough: true });
    return leasesOf(path).map((lease) =>
      describe(network, lease, known, (link) => linkByName(rtnetlink, link) !== undefined),
    );
  });
}

interface StoreFolder {
  readonly network: string;
  readonly path: string;
}

/** Folders that contain a lease or host-local's lock. */
function storesIn(dataDir: string): StoreFolder[] {
  const isStore = (path: string): boolean =>
    lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true &&
    readdirSync(path).some((name) => name === 'lock' || parseAddress(name) !== undefined);
  if (lstatSync(dataDir, { throwIfNoEntry: false }) === undefined) return [];
  return readdirSync(dataDir)
    .sort()
    .map((network) => ({ network, path: join(dataDir, network) }))
    .filter(({ path }) => isStore(path));
}

function leasesOf(store: string): FoundLease[] {
  const leases = scanStore(store).leases.filter(({ address, isFile }) => address !== undefined && isFile);
  return leases.sort((a, b) =>
    a.address === undefined || b.address === undefined ? 0 : compareAddresses(a.address, b.address),
  );
}

function describe(
  network: string,
  { path, address, lease }: FoundLease,
  known: KnownAttachments,
  linkExists: (link: string) => boolean,
): LeaseState {
  const text = address === undefined ? '' : formatAddress(address);
  const container = 'containerId' in lease ? lease.containerId : undefined;
  const ifname = lease.kind === 'exact' ? lease.ifname : undefined;
  const cached = known.cachedResults(container ?? '').find((result) => result.ifname === ifname);
  const last = container === undefined ? undefined : namespaceOf(container, cached?.netns ?? '');
  const current = known.addressesInUse().byAddress.get(text)?.[0];
  const mtime = lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now();
  return {
    network,
    address: text,
    container,
    ifname,
    leasedAt: new Date(mtime).toISOString(),
    ageSeconds: Math.max(0, Math.round((Date.now() - mtime) / 1000)),
    state: container === undefined ? 'not a lease' : stateOf(current, last),
    namespace: current ?? last,
    hostInterfaces: (cached?.hostInterfaces ?? []).map((link) => ({ name: link, exists: linkExists(link) })),
    file: path,
  };
}

function stateOf(current: string | undefined, last: string | undefined): LeaseState['state'] {
  if (current !== undefined) return 'live';
  return last !== undefined && isNetworkNamespace(last) ? 'no address' : 'gone';
}

/** From the runtime's cached result, else the namespace named after the container, as those of Nomad's allocations are. */
function namespaceOf(container: string, cached: string): string | undefined {
  if (cached !== '') return cached;
  const named = namespaceNamedAfter(container);
  return isNetworkNamespace(named) ? named : undefined;
}
