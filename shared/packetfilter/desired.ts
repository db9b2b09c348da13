import type { Invocation } from '../cni/plugin.ts';
import type { NetlinkRequest } from '../kernel/netlink/message.ts';
import { CallCache } from '../kernel/call-scope.ts';
import type { NftTable } from './nftables/model.ts';
import type { NftReader } from './nftables/reader.ts';
import type { Family, TableChange, TableName } from './ruleset.ts';
import { nftTablesInUse, variantHasTables } from './tables-in-use.ts';

/** What the ADDs of running containers set up on the host, for repair. Each part can be compared with the host, and completed. */
export interface Desired {
  /** Of iptables' tables, in the order of the ADDs. */
  readonly iptables: readonly DesiredChange[];
  /** Of nf_tables' own tables: the requests that complete them, none if they are complete. Pure, and all in one transaction. */
  readonly nftables: readonly ((reader: NftReader) => readonly NetlinkRequest[])[];
  /** Containers share a port in them: those are completed one after the other, so several transactions may be needed. */
  readonly sharesPorts?: boolean;
  /** Everything else: kernel parameters, sources of firewalld. */
  readonly settings: readonly HostSetting[];
}

export interface DesiredChange {
  readonly family: Family;
  readonly table: TableName;
  readonly change: Omit<TableChange, 'family' | 'table'>;
  /** The rules may have raw arguments, which only iptables can parse. */
  readonly rawArgs?: boolean;
}

export interface HostSetting {
  /** A phrase for each missing piece. */
  missing(): string[];
  /** Sets what is missing. */
  restore(): void;
}

/** A plugin's part in repair: the module `desired.ts` of its folder. */
export interface DesiredRole {
  /** @param calls a CHECK for each running attachment, in the order of their ADDs */
  desired(calls: readonly Invocation<unknown>[]): Desired;
}

/** A pure function that keeps its value for each object: repair plans for the same calls again and again. */
export function perObject<Key extends object, Value>(make: (key: Key) => Value): (key: Key) => Value {
  const known = new WeakMap<Key, Value>();
  return (key) => {
    const value = known.get(key) ?? make(key);
    known.set(key, value);
    return value;
  };
}

/**
 * The back end that has a container's rules: the chosen one, unless another one alone is complete, because the node was moved since its ADD.
 * @param own the plugin's tables in nf_tables: without them, and without tables of iptables, other back ends need no look at each container
 * @param mayHaveMoved asked only if others have tables
 * @param missing what a back end lacks, undefined when it is complete; throws if this host cannot use it
 */
export function backendWithRules<Name extends string>(
  chosen: Name,
  all: readonly Name[],
  own: readonly NftTable[],
  mayHaveMoved: () => boolean,
  missing: (name: Name) => unknown,
): Name {
  const others = all.filter((name) => name !== chosen && hasTables(name, own));
  if (others.length === 0 || !mayHaveMoved()) return chosen;
  const isComplete = (name: Name): boolean => {
    try {
      return missing(name) === undefined;
    } catch {
      return false;
    }
  };
  return [chosen, ...others].find(isComplete) ?? chosen;
}

/** Whether a back end has tables on this host; asked once in a repair. */
function hasTables(backend: string, own: readonly NftTable[]): boolean {
  if (backend === 'nftables')
    return inUse.get(own.map(({ name }) => name).join(' '), () => nftTablesInUse(own).length > 0);
  return backend !== 'iptables' || inUse.get(backend, hasIptablesTables);
}

const inUse = new CallCache<boolean>();

function hasIptablesTables(): boolean {
  return (['nft', 'legacy'] as const).some((variant) =>
    (['ipv4', 'ipv6'] as const).some((family) => variantHasTables(variant, family)),
  );
}
