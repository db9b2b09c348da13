import { statSync } from 'node:fs';
import { uptime } from 'node:os';
import { PLUGINS, type PluginEntry } from '../../plugins/index.ts';
import { nameOf } from '../../shared/attachments/holders.ts';
import { takeInventory, type InventoryEntry } from '../../shared/attachments/inventory.ts';
import type { Trace, TracesRole } from '../../shared/attachments/leftover.ts';
import { lastCallAtMs } from '../../shared/cni/call-marks.ts';
import { withCallScope } from '../../shared/kernel/call-scope.ts';
import { withCallDeadline } from '../../shared/kernel/deadline.ts';
import { isNetworkNamespace } from '../../shared/kernel/namespace.ts';
import { judge, type Belongings, type Doubt, type Leak } from './judge.ts';

export async function loadTracesRoles(): Promise<TracesRole[]> {
  const roles = PLUGINS.map(async (entry: PluginEntry) => entry.traces?.());
  return (await Promise.all(roles)).filter((role) => role !== undefined);
}

export interface Look {
  readonly leaks: readonly Leak[];
  readonly doubts: readonly Doubt[];
}

/** Finds what containers that are gone have left on this host. Changes nothing. */
export function look(roles: readonly TracesRole[]): Look {
  return withCallScope(() =>
    withCallDeadline(() => {
      const { entries, holderOf } = takeInventory();
      const traces = roles.flatMap((role) => role.traces());
      const facts = {
        nowMs: Date.now(),
        uptimeMs: uptime() * 1000,
        holderOf,
        isNamed,
        alive: new Set(entries.flatMap(({ state, containerId }) => (state === 'gone' ? [] : [containerId]))),
      };
      const verdicts = belongingsOf(entries, traces).map((one) => judge(one, facts));
      return {
        leaks: verdicts.filter((one): one is Leak => one?.verdict === 'leak'),
        doubts: verdicts.filter((one): one is Doubt => one?.verdict === 'doubt'),
      };
    }),
  );
}

/** Whether nothing has happened to the container since the look: a runtime may have added it again. */
export function isStillGone({ containerId, network, entries, traces, newestMs }: Leak): boolean {
  const paths = entries.map(({ netns }) => netns).filter((path) => path !== '' && !path.startsWith('/proc/'));
  return (
    !isNamed(containerId) &&
    !paths.some(isNetworkNamespace) &&
    newestOf(network, containerId, entries, traces) === newestMs
  );
}

function belongingsOf(entries: readonly InventoryEntry[], traces: readonly Trace[]): Belongings[] {
  const keyOf = ({ network, containerId }: { network: string; containerId: string }): string =>
    `${network}/${containerId}`;
  const entriesByKey = Map.groupBy(entries, keyOf);
  const tracesByKey = Map.groupBy(traces, keyOf);
  return [...new Set([...entriesByKey.keys(), ...tracesByKey.keys()])].flatMap((key) => {
    const own = { entries: entriesByKey.get(key) ?? [], traces: tracesByKey.get(key) ?? [] };
    const [one] = [...own.entries, ...own.traces];
    if (one === undefined) return [];
    const { network, containerId } = one;
    return [
      { ...own, network, containerId, newestMs: newestOf(network, containerId, own.entries, own.traces) },
    ];
  });
}

/** Times of the files, and of the last call of a plugin. */
function newestOf(
  network: string,
  containerId: string,
  entries: readonly InventoryEntry[],
  traces: readonly Trace[],
): number | undefined {
  const files = entries.flatMap(({ cacheFile, leaseFiles }) => [
    ...(cacheFile === undefined ? [] : [cacheFile]),
    ...leaseFiles,
  ]);
  const times = [
    ...files.map((file) => statSync(file, { throwIfNoEntry: false })?.mtimeMs),
    ...interfacesOf({ entries, traces }).map((ifname) => lastCallAtMs({ network, containerId, ifname })),
    ...traces.map(({ writtenAtMs }) => writtenAtMs),
  ].filter((time) => time !== undefined);
  return times.length === 0 ? undefined : Math.max(...times);
}

/** Where nothing names one, runtimes call it eth0. */
export function interfacesOf({ entries, traces }: Pick<Belongings, 'entries' | 'traces'>): string[] {
  const named = new Set([...entries, ...traces].flatMap(({ ifname }) => ifname ?? []));
  return named.size === 0 ? ['eth0'] : [...named];
}

function isNamed(containerId: string): boolean {
  const path = nameOf({ containerId });
  return path !== undefined && isNetworkNamespace(path);
}
