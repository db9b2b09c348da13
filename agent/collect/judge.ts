import type { HolderOf } from '../../shared/attachments/holders.ts';
import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import type { Trace } from '../../shared/attachments/leftover.ts';

/** Everything on the host that names one container on one network. */
export interface Belongings {
  readonly network: string;
  readonly containerId: string;
  /** What the runtime's cached results and leases tell, one for each interface. */
  readonly entries: readonly InventoryEntry[];
  /** What plugins made: interfaces, rules, files. */
  readonly traces: readonly Trace[];
  /** The newest time of the files, and of the last call for it, in milliseconds since 1970; undefined if nothing tells a time. */
  readonly newestMs: number | undefined;
}

/** What a container that is certainly gone has left behind. */
export interface Leak extends Belongings {
  readonly verdict: 'leak';
  /** Why it is certain, as a phrase. */
  readonly reason: string;
  /** Undefined where nothing tells a time: rules alone. ADD writes them when the namespace has the address already. */
  readonly ageSeconds: number | undefined;
}

/** A container that has no namespace of its own, but may be running. */
export interface Doubt extends Belongings {
  readonly verdict: 'doubt';
  readonly reason: string;
}

/** What the judgement depends on besides the belongings. */
export interface HostFacts {
  /** Milliseconds since 1970. */
  readonly nowMs: number;
  /** Of the host: what was added before this boot is at most as old as it. */
  readonly uptimeMs: number;
  readonly holderOf: HolderOf;
  /** Whether a network namespace is named after the container. */
  readonly isNamed: (containerId: string) => boolean;
  /** Containers of which an attachment on any network is not certainly gone. */
  readonly alive: ReadonlySet<string>;
}

/** Longer than any ADD, and than Nomad's restoring of allocations when its agent or the host has started. */
export const GRACE_MS = 600_000;

/**
 * Whether these are the remains of a container that is gone: it has no network namespace, none is named after it or has one of its addresses, every
 * namespace of the host could be read, and ten minutes have passed since its last ADD and since the host has started.
 * @returns undefined for a container that runs
 */
export function judge(belongings: Belongings, facts: HostFacts): Leak | Doubt | undefined {
  const { containerId, entries, traces, newestMs } = belongings;
  const doubt = (reason: string): Doubt => ({ ...belongings, verdict: 'doubt', reason });
  if (entries.some(({ state }) => state === 'running')) return undefined;
  const unknown = entries.find(({ state }) => state === 'unknown');
  if (unknown !== undefined) return doubt(unknown.reason);
  if (facts.alive.has(containerId)) return doubt('the container is attached to another network');
  if (entries.length === 0 && facts.isNamed(containerId)) return undefined;
  const connected = traces.find(({ namespace }) => namespace === 'exists');
  if (connected !== undefined) return doubt(`${connected.what} leads to a network namespace of another name`);
  const addresses = [...new Set(traces.flatMap((trace) => trace.addresses()))];
  const leased = entries.flatMap(({ leaseFiles }) => leaseFiles.map((file) => file.replace(/.*\//, '')));
  const holder = facts.holderOf({ containerId, addresses, leased });
  if (holder === 'unknown') return doubt("the host's namespaces could not all be read");
  if (holder !== 'none') return doubt(`network namespace ${holder.path} has address ${holder.address}`);
  if (entries.length === 0 && addresses.length === 0 && !traces.some(({ namespace }) => namespace === 'gone'))
    return doubt('no address and no network namespace are known');
  const ageMs = Math.min(facts.uptimeMs, newestMs === undefined ? Infinity : facts.nowMs - newestMs);
  if (ageMs < GRACE_MS) return doubt(`younger than ${GRACE_MS / 60_000} minutes`);
  return {
    ...belongings,
    verdict: 'leak',
    reason: entries[0]?.reason ?? 'no network namespace is named after it or has its address',
    ageSeconds: newestMs === undefined ? undefined : Math.round(ageMs / 1000),
  };
}

/** The pieces of a leak, each as a phrase. */
export function piecesOf({ entries, traces }: Belongings): string[] {
  return [
    ...new Set([
      ...entries.flatMap(({ cacheFile }) => (cacheFile === undefined ? [] : [`cached result ${cacheFile}`])),
      ...entries.flatMap(({ leaseFiles }) => leaseFiles.map((file) => `lease ${file}`)),
      ...traces.map(({ what }) => what),
    ]),
  ];
}
