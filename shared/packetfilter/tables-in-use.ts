import { isErrno } from '../kernel/errno.ts';
import { readKernelFile } from '../kernel/files.ts';
import { NftConnection } from './nftables/connection.ts';
import { Message, request } from './nftables/messages.ts';
import type { NftTable } from './nftables/model.ts';
import type { Family } from './ruleset.ts';

/** The two implementations of iptables; each has tables of its own in every network namespace. */
export type IptablesVariant = 'nft' | 'legacy';

/**
 * Whether a variant of iptables has tables that can hold rules of this suite (`nat`, `filter`) in the current network namespace.
 * Costs one small file for `legacy`, one netlink request for `nft`.
 */
export function variantHasTables(variant: IptablesVariant, family: Family): boolean {
  if (variant === 'legacy') return (legacyTablesInUse(family) ?? []).some((name) => name in TABLES);
  return (
    nftTablesInUse(Object.keys(TABLES).map((name) => ({ family: NFT_FAMILIES[family], name }))).length > 0
  );
}

/**
 * The tables of iptables-legacy that are in use in the current network namespace. Asking creates none.
 * @returns undefined when the kernel does not tell: in a user namespace the file belongs to another user
 */
export function legacyTablesInUse(family: Family): readonly string[] | undefined {
  try {
    return readKernelFile(LEGACY_NAMES[family])
      .split('\n')
      .filter((line) => line !== '');
  } catch (thrown) {
    // ENOENT: a kernel without iptables-legacy.
    if (isErrno(thrown, 'ENOENT')) return [];
    if (isErrno(thrown, 'EACCES', 'EPERM')) return undefined;
    throw thrown;
  }
}

/** Those of these tables that nf_tables has in the current network namespace; iptables-nft keeps its own there under their usual names. */
export function nftTablesInUse(tables: readonly NftTable[]): NftTable[] {
  if (tables.length === 0) return [];
  using connection = NftConnection.open();
  try {
    const bodies = connection.getAll(
      tables.map(({ family, name }) =>
        request(`get table ${family} ${name}`, Message.getTable, 0, family, [[1, name]]),
      ),
    );
    return tables.filter((_, at) => bodies[at] !== undefined);
  } catch (thrown) {
    // A kernel without nf_tables.
    if (isErrno(thrown, 'EINVAL', 'EOPNOTSUPP', 'EPROTONOSUPPORT')) return [];
    throw thrown;
  }
}

const TABLES = { filter: true, nat: true } as const;
const NFT_FAMILIES = { ipv4: 'ip', ipv6: 'ip6' } as const;
const LEGACY_NAMES = {
  ipv4: '/proc/thread-self/net/ip_tables_names',
  ipv6: '/proc/thread-self/net/ip6_tables_names',
} as const;
