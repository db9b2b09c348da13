import { lstatSync, readdirSync, statfsSync } from 'node:fs';
import { KnownAttachments } from '../attachments/attachments.ts';
import type { FoundLease } from '../attachments/lease-files.ts';
import { readRegularFile } from '../kernel/files.ts';
import { formatAddress } from '../net/address.ts';

export interface Reclaimable {
  readonly found: FoundLease;
  readonly why: string;
}

export interface Judged {
  /** Leases that no running container can be using. */
  readonly reclaimable: readonly Reclaimable[];
  /** Leases of containers that no longer exist, which DEL or GC will release: the runtime still has a cached result of them. */
  readonly stale: readonly FoundLease[];
  /** Leases less than a minute old of containers that nothing else knows: their ADD failed or is still running. */
  readonly young: readonly FoundLease[];
}

/**
 * Judges leases when a range has run out of addresses. Reclaimable are:
 *
 * - files whose text is no lease: no DEL could release them;
 * - leases of an earlier boot whose address no network namespace has. A namespace does not outlive the machine's memory, and an ADD
 *   that finds its own lease renews the file's time;
 * - leases older than a minute of a container that is certainly gone, {@link KnownAttachments.mayBeAlive}, and of which the runtime has no
 *   cached result: its ADD failed, and the DEL after it did not reach this plugin.
 */
export function judge(network: string, leases: readonly FoundLease[]): Judged {
  const known = new KnownAttachments({ network, thorough: true });
  const began = bootBegan();
  const reclaimable: Reclaimable[] = [];
  const stale: FoundLease[] = [];
  const young: FoundLease[] = [];
  for (const found of leases.filter(({ isFile }) => isFile)) {
    if (found.lease.kind === 'invalid') {
      reclaimable.push({ found, why: 'its text is no lease, so no DEL could release it' });
    } else if ('containerId' in found.lease) {
      const why = whyGone(known, network, found, began);
      if (why === 'stale') stale.push(found);
      else if (why === 'young') young.push(found);
      else if (why !== undefined) reclaimable.push({ found, why });
    }
  }
  return { reclaimable, stale, young };
}

/** An ADD that is still running may have written its lease before it created anything else. */
const YOUNG_MS = 60_000;

/** @returns undefined if its container may be running, `stale` or `young` as in {@link Judged} */
function whyGone(
  known: KnownAttachments,
  network: string,
  { path, address, lease }: FoundLease,
  began: number | undefined,
): string | undefined {
  const writtenMs = lstatSync(path, { throwIfNoEntry: false })?.mtimeMs;
  if (address === undefined || writtenMs === undefined || !('containerId' in lease)) return undefined;
  const text = formatAddress(address);
  if (began !== undefined && writtenMs < began) {
    const isInUse = known.addressesInUse().byAddress.has(text);
    return isInUse ? undefined : 'written before this boot, and no network namespace has the address';
  }
  const ifname = lease.kind === 'exact' ? lease.ifname : undefined;
  const attachment = { network, containerId: lease.containerId, ifname, address: text };
  if (known.mayBeAlive(attachment)) return undefined;
  if (known.cachedResults(lease.containerId).length > 0) return 'stale';
  if (writtenMs > Date.now() - YOUNG_MS) return 'young';
  return `container ${lease.containerId} no longer exists: no network namespace has the address, and no cached result names it`;
}

/**
 * The latest time, in milliseconds since 1970, at which this boot had certainly not begun: a file that was written before comes from an
 * earlier boot. Undefined if that is unknown.
 *
 * The kernel's boot time is not enough: it is "now minus uptime", and moves forward when the clock is set (a board without a battery
 * starts in 1970) and when a virtual machine is restored from a snapshot days later. So the oldest trace of this boot counts as well:
 * birth and change times of entries of file systems in memory, which cannot be set back.
 */
export function bootBegan(
  folders: readonly string[] = IN_MEMORY,
  kernelStat = '/proc/stat',
): number | undefined {
  const traces = folders.filter(isInMemory).flatMap(tracesIn);
  const kernel = bootTimeOfKernel(kernelStat);
  if (kernel === undefined || traces.length === 0) return undefined;
  return Math.min(kernel, ...traces) - MARGIN_MS;
}

/** The kernel and init fill them in the first second; they are never emptied. */
const IN_MEMORY = ['/dev', '/run'];
/** linux/magic.h; statfs(2) reports a devtmpfs as tmpfs. */
const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;
/** btime counts whole seconds and varies by one. */
const MARGIN_MS = 5_000;

function isInMemory(folder: string): boolean {
  const type = statfsSync(folder).type;
  return type === TMPFS_MAGIC || type === RAMFS_MAGIC;
}

/** Zero means "not recorded". Entries that are mount points belong to other file systems and are skipped. */
function tracesIn(folder: string): number[] {
  const { dev } = lstatSync(folder);
  return [folder, ...readdirSync(folder).map((name) => `${folder}/${name}`)].flatMap((path) => {
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined || stat.dev !== dev) return [];
    return [stat.birthtimeMs, stat.ctimeMs].filter((time) => time > 0);
  });
}

/** proc_stat(5): `btime <seconds since 1970>`. */
function bootTimeOfKernel(file: string): number | undefined {
  const seconds = /^btime (\d+)$/m.exec(readRegularFile(file) ?? '')?.[1];
  return seconds === undefined ? undefined : Number(seconds) * 1000;
}
