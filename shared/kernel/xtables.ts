import { closeSync, readFileSync } from 'node:fs';
import { checked, isErrno, libc } from './libc.ts';

/** A table of iptables-legacy as the kernel holds it (linux/netfilter_ipv4/ip_tables.h, _ipv6/ip6_tables.h). */
export interface XtablesBlob {
  /** By hook (NF_INET_*): where its chain begins, and where its policy stands; offsets into `entries`. */
  readonly hookEntry: readonly number[];
  readonly underflow: readonly number[];
  /** Bit per hook that the table is in. */
  readonly validHooks: number;
  /** struct ipt_entry or ip6t_entry, one behind the other. */
  readonly entries: Buffer;
}

/**
 * The legacy variant has no netlink: its tables are read with getsockopt on any raw socket. In the network namespace that the
 * caller is in.
 * @returns undefined when the table is not in use; it is not brought into being by the question
 */
export function readXtables(family: 'ipv4' | 'ipv6', table: string): XtablesBlob | undefined {
  const { domain, level, names } = FAMILIES[family];
  if (!tablesInUse(names).includes(table)) return undefined;
  const fd = checked('socket(SOCK_RAW)', libc().socket(domain, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  try {
    for (let attempt = 1; ; attempt++) {
      const info = option(fd, level, GET_INFO, request(table, INFO_SIZE));
      const size = info.readUInt32LE(80);
      try {
        const answer = option(fd, level, GET_ENTRIES, request(table, ENTRIES_HEADER + size, size));
        return blobOf(info, answer.subarray(ENTRIES_HEADER));
      } catch (thrown) {
        // The table was replaced by one of another size in between.
        if (!isErrno(thrown, 'EAGAIN') || attempt === MOST_ATTEMPTS) throw thrown;
      }
    }
  } finally {
    closeSync(fd);
  }
}

/** bits/socket.h, netinet/in.h */
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_RAW = 255;
const FAMILIES = {
  ipv4: { domain: 2, level: 0, names: '/proc/net/ip_tables_names' },
  ipv6: { domain: 10, level: 41, names: '/proc/net/ip6_tables_names' },
} as const;
/** IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES; IP6T_* are the same */
const GET_INFO = 64;
const GET_ENTRIES = 65;
const MOST_ATTEMPTS = 20;

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

function blobOf(info: Buffer, entries: Buffer): XtablesBlob {
  const five = (at: number): number[] => [0, 1, 2, 3, 4].map((hook) => info.readUInt32LE(at + 4 * hook));
  return { validHooks: info.readUInt32LE(32), hookEntry: five(36), underflow: five(56), entries };
}

/** Name and size begin both questions; the answer overwrites them. */
function request(table: string, length: number, size = 0): Buffer {
  const buffer = Buffer.alloc(length);
  buffer.write(table, 0);
  if (size > 0) buffer.writeUInt32LE(size, 32);
  return buffer;
}

function option(fd: number, level: number, name: number, buffer: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32LE(buffer.length, 0);
  checked('getsockopt(iptables)', libc().getsockopt(fd, level, name, buffer, length));
  return buffer;
}

function tablesInUse(file: string): string[] {
  try {
    return readFileSync(file, 'latin1').split('\n');
  } catch (thrown) {
    if ((thrown as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw thrown;
  }
}
