import { PLUGINS, type PluginEntry } from '../../plugins/index.ts';
import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import { parseResult, type CniResult } from '../../shared/cni/results.ts';
import { isCniVersion, type CniVersion } from '../../shared/cni/versions.ts';
import type { Desired, DesiredRole } from '../../shared/packetfilter/desired.ts';

/** A plugin that sets up something on the host which repair restores. */
export interface Role extends DesiredRole {
  /** Under which a list may name it. */
  readonly types: readonly string[];
  readonly plugin: Plugin<unknown>;
}

export async function loadRoles(): Promise<Role[]> {
  const roles = PLUGINS.map(async (entry: PluginEntry) => {
    const role = await entry.desired?.();
    if (role === undefined) return [];
    return [
      {
        types: [entry.name, ...(entry.aliases ?? [])],
        plugin: await entry.load(),
        desired: (calls: Parameters<DesiredRole['desired']>[0]) => role.desired(calls),
      },
    ];
  });
  return (await Promise.all(roles)).flat();
}

/** An attachment as the calls of its plugins, by role. */
export interface Repairable {
  readonly entry: InventoryEntry & { readonly ifname: string };
  readonly calls: ReadonlyMap<Role, readonly Invocation<unknown>[]>;
}

type Problem = (line: string) => void;

type Calls = Repairable['calls'];

/** The calls of attachments by their cached results: the reader keeps the object of a result that has not changed. */
export type KnownCalls = WeakMap<object, Calls>;

/** What the plugins' ADDs of these attachments were given. One whose result or configuration is invalid is left out. */
export function repairables(
  roles: readonly Role[],
  entries: readonly InventoryEntry[],
  problem: Problem,
  known: KnownCalls = new WeakMap(),
): Repairable[] {
  // Attachments of one network share the objects of their list.
  const configured = new Map<object, unknown>();
  return entries.flatMap((entry) => {
    const { ifname, cniVersion = '0.1.0', prevResult } = entry;
    if (ifname === undefined || !isObject(prevResult) || !isCniVersion(cniVersion)) return [];
    const named = { ...entry, ifname };
    const earlier = known.get(prevResult);
    if (earlier !== undefined) return [{ entry: named, calls: earlier }];
    try {
      const base = invocation(named, cniVersion, parseResult(cniVersion, prevResult), problem);
      const byRole = roles.map((role) => {
        const own = entry.plugins.filter(({ type }) => role.types.includes(type as string));
        const invocations = own.flatMap((raw) => {
          const config = configured.get(raw) ?? settingsOf(role, raw);
          configured.set(raw, config);
          return config === undefined ? [] : [{ ...base, config }];
        });
        return [role, invocations] as const;
      });
      const calls = new Map(byRole);
      known.set(prevResult, calls);
      return [{ entry: named, calls }];
    } catch (thrown) {
      problem(`container ${entry.containerId} on network ${entry.network}: ${toCniError(thrown).message}`);
      return [];
    }
  });
}

/** What the attachments need together. An attachment whose plan fails is left out, with its reason. */
export function desiredOf(
  roles: readonly Role[],
  attachments: readonly Repairable[],
  problem: Problem,
): Desired {
  const parts = roles.map((role) => {
    const calls = attachments.flatMap((one) => one.calls.get(role) ?? []);
    try {
      return role.desired(calls);
    } catch {
      return role.desired(calls.filter((call) => canPlan(role, call, problem)));
    }
  });
  return {
    iptables: parts.flatMap(({ iptables }) => iptables),
    nftables: parts.flatMap(({ nftables }) => nftables),
    sharesPorts: parts.some(({ sharesPorts }) => sharesPorts === true),
    settings: parts.flatMap(({ settings }) => settings),
  };
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null;
}

function canPlan(role: Role, call: Invocation<unknown>, problem: Problem): boolean {
  try {
    role.desired([call]);
    return true;
  } catch (thrown) {
    problem(`container ${call.containerId} on network ${call.network}: ${toCniError(thrown).message}`);
    return false;
  }
}

function settingsOf({ plugin }: Role, raw: Readonly<Record<string, unknown>>): unknown {
  const decoded = plugin.configure(raw);
  return 'settings' in decoded ? decoded.settings : undefined;
}

function invocation(
  entry: Repairable['entry'],
  cniVersion: CniVersion,
  prevResult: CniResult,
  problem: Problem,
): Omit<Invocation<unknown>, 'config'> {
  const { network, containerId, ifname, netns } = entry;
  return {
    command: 'CHECK',
    network,
    containerId,
    ifname,
    netns,
    args: new Map(entry.args),
    path: [],
    cniVersion,
    stdin: '',
    environment: {},
    prevResult,
    validAttachments: undefined,
    warn: problem,
  };
}
