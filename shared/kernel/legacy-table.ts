import { closeSync, readFileSync } from 'node:fs';
import { addressOf, checked, isErrno, libc } from './libc.ts';

/** A table of iptables-legacy as the kernel holds it (linux/netfilter_ipv4/ip_tables.h, _ipv6/ip6_tables.h). */
export interface TableBlob {
  /** By hook (NF_INET_*): offsets of its chain and of its policy in `entries`. */
  readonly hookEntry: readonly number[];
  readonly underflow: readonly number[];
  /** One bit per hook of the table. */
  readonly validHooks: number;
  /** Number of entries. */
  readonly count: number;
  /** struct ipt_entry or ip6t_entry, concatenated. */
  readonly entries: Buffer;
}

/**
 * Reads a table of the caller's network namespace. The legacy variant has no netlink interface: tables are read by getsockopt(2) on a raw
 * socket and written by setsockopt(2).
 * @returns undefined when the table is not in use; reading does not create it
 */
export function readTableBlob(family: XtablesFamily, table: string): TableBlob | undefined {
  return tablesInUse(FAMILIES[family].names)?.includes(table) === false
    ? undefined
    : loadTableBlob(family, table);
}

/** Reads a table and creates it when it is not in use yet, as iptables does. */
export function loadTableBlob(family: XtablesFamily, table: string): TableBlob {
  return withSocket(family, (fd, level) => {
    for (let attempt = 1; ; attempt++) {
      const info = option(fd, level, GET_INFO, request(table, INFO_SIZE));
      const size = info.readUInt32LE(80);
      try {
        const answer = option(fd, level, GET_ENTRIES, request(table, ENTRIES_HEADER + size, size));
        return blobOf(info, answer.subarray(ENTRIES_HEADER));
      } catch (thrown) {
        // Another program replaced the table by one of another size.
        if (!isErrno(thrown, 'EAGAIN') || attempt === MOST_ATTEMPTS) throw thrown;
      }
    }
  });
}

/**
 * Replaces a table as a whole.
 * @param presentCount how many entries the present table had when it was read
 * @returns the final counters of the replaced table, one struct xt_counters (packets u64, bytes u64) for each of its entries
 * @throws KernelError EAGAIN when the present table has another number of entries by now
 */
export function replaceTableBlob(
  family: XtablesFamily,
  table: string,
  blob: TableBlob,
  presentCount: number,
): Buffer {
  const counters = Buffer.alloc(presentCount * COUNTERS_SIZE);
  const request = replacement(table, blob, { count: presentCount, at: addressOf(counters) });
  withSocket(family, (fd, level) => {
    checked(
      'setsockopt(IPT_SO_SET_REPLACE)',
      libc().setsockopt(fd, level, SET_REPLACE, request, request.length),
      'CAP_NET_ADMIN',
    );
  });
  return counters;
}

/**
 * Adds to the counters of every entry of a table.
 * @param counters one struct xt_counters for each
 * @throws KernelError EINVAL when the table has another number of entries
 */
export function addTableCounters(family: XtablesFamily, table: string, counters: Buffer): void {
  const header = Buffer.alloc(COUNTERS_HEADER);
  header.write(table, 0);
  header.writeUInt32LE(counters.length / COUNTERS_SIZE, 32);
  const request = Buffer.concat([header, counters]);
  withSocket(family, (fd, level) => {
    checked(
      'setsockopt(IPT_SO_SET_ADD_COUNTERS)',
      libc().setsockopt(fd, level, SET_ADD_COUNTERS, request, request.length),
      'CAP_NET_ADMIN',
    );
  });
}

type XtablesFamily = 'ipv4' | 'ipv6';

/** bits/socket.h, netinet/in.h */
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_RAW = 255;
const FAMILIES = {
  ipv4: { domain: 2, level: 0, names: '/proc/net/ip_tables_names' },
  ipv6: { domain: 10, level: 41, names: '/proc/net/ip6_tables_names' },
} as const;
/** IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES, IPT_SO_SET_REPLACE, IPT_SO_SET_ADD_COUNTERS; IP6T_* are the same */
const GET_INFO = 64;
const GET_ENTRIES = 65;
const SET_REPLACE = 64;
const SET_ADD_COUNTERS = 65;
const MOST_ATTEMPTS = 20;

function withSocket<T>(family: XtablesFamily, work: (fd: number, level: number) => T): T {
  const { domain, level } = FAMILIES[family];
  const fd = checked(
    'socket(SOCK_RAW)',
    libc().socket(domain, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW),
    'CAP_NET_RAW',
  );
  try {
    return work(fd, level);
  } finally {
    closeSync(fd);
  }
}

/**
 * struct ipt_getinfo:
 * ```
 *  0          32            36                    56                 76             80
 * +----------+-------------+---------------------+------------------+--------------+------------+
 * | name     | valid_hooks | hook_entry u32 × 5  | underflow u32 × 5| num_entries  | size u32   |
 * +----------+-------------+---------------------+------------------+--------------+------------+
 * ```
 */
const INFO_SIZE = 84;
/** struct ipt_get_entries: name 32, size u32, padding; then the entries */
const ENTRIES_HEADER = 40;

/** struct xt_counters_info: name 32, num_counters u32, padding; then the counters */
const COUNTERS_HEADER = 40;
/** struct xt_counters */
const COUNTERS_SIZE = 16;

function blobOf(info: Buffer, entries: Buffer): TableBlob {
  const five = (at: number): number[] => HOOKS.map((hook) => info.readUInt32LE(at + 4 * hook));
  const [validHooks, count] = [info.readUInt32LE(32), info.readUInt32LE(76)];
  return { validHooks, hookEntry: five(36), underflow: five(56), count, entries };
}

const HOOKS = [0, 1, 2, 3, 4];

/**
 * struct ipt_replace, ip6t_replace:
 * ```
 *  0      32            36            40         44                   64                  84             88         96
 * +------+-------------+-------------+----------+--------------------+-------------------+--------------+----------+---------+
 * | name | valid_hooks | num_entries | size u32 | hook_entry u32 × 5 | underflow u32 × 5 | num_counters | counters | entries |
 * +------+-------------+-------------+----------+--------------------+-------------------+--------------+----------+---------+
 * ```
 * `counters` is a pointer to memory for the counters of the replaced table; `num_counters` must match it.
 */
function replacement(
  table: string,
  { validHooks, hookEntry, underflow, count, entries }: TableBlob,
  counters: { readonly count: number; readonly at: bigint },
): Buffer {
  const header = Buffer.alloc(96);
  header.write(table, 0);
  header.writeUInt32LE(validHooks, 32);
  header.writeUInt32LE(count, 36);
  header.writeUInt32LE(entries.length, 40);
  for (const hook of HOOKS) {
    header.writeUInt32LE(hookEntry[hook] ?? 0, 44 + 4 * hook);
    header.writeUInt32LE(underflow[hook] ?? 0, 64 + 4 * hook);
  }
  header.writeUInt32LE(counters.count, 84);
  header.writeBigUInt64LE(counters.at, 88);
  return Buffer.concat([header, entries]);
}

/** Both requests begin with name and size; the answer overwrites them. */
function request(table: string, length: number, size = 0): Buffer {
  const buffer = Buffer.alloc(length);
  buffer.write(table, 0);
  if (size > 0) buffer.writeUInt32LE(size, 32);
  return buffer;
}

function option(fd: number, level: number, name: number, buffer: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(buffer.length, 0);
  checked('getsockopt(iptables)', libc().getsockopt(fd, level, name, buffer, length), 'CAP_NET_ADMIN');
  return buffer;
}

/** @returns undefined in a user namespace, where the file belongs to another user: the tables may be in use */
function tablesInUse(file: string): string[] | undefined {
  try {
    return readFileSync(file, 'latin1').split('\n');
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT')) return [];
    if (isErrno(thrown, 'EACCES', 'EPERM')) return undefined;
    throw thrown;
  }
}
