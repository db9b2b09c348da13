import { closeSync, openSync, readdirSync, readFileSync, readlinkSync, readSync } from 'node:fs';
import { toCniError } from '../../shared/cni/errors.ts';
import { isErrno } from '../../shared/kernel/errno.ts';
import { addressFromBytes, formatAddress } from '../../shared/net/address.ts';
import type { PortForwarding } from './backend.ts';
import { HostPortIndex, hostPortsOf } from './mapping.ts';

/**
 * Warns of programs on the host that listen on published ports: connections reach the container instead of them. Names are looked up
 * below /proc only if there is such a program. A failure is only a warning.
 */
export function warnOfListeners(forwardings: readonly PortForwarding[], warn: (line: string) => void): void {
  try {
    const sockets = listeningSockets(forwardings);
    if (sockets.length === 0) return;
    const processes = processesOf(new Set(sockets.map(({ inode }) => inode)));
    const lines = sockets.map(({ protocol, address, port, inode }) => {
      const host = address.includes(':') ? `[${address}]` : address;
      const listener = processes.get(inode) ?? 'a program on the host';
      return `${listener} listens on ${host}:${port}/${protocol}`;
    });
    for (const line of [...new Set(lines)].slice(0, MOST_WARNINGS)) {
      warn(`host port is in use by a program: ${line}; connections reach the container instead`);
    }
  } catch (thrown) {
    warn(`could not look for programs that listen on the published ports: ${toCniError(thrown).message}`);
  }
}

const MOST_WARNINGS = 12;

interface Socket {
  readonly protocol: 'tcp' | 'udp';
  readonly address: string;
  readonly port: number;
  readonly inode: string;
}

function listeningSockets(forwardings: readonly PortForwarding[]): Socket[] {
  const wanted = new Map(
    forwardings.map(({ family, mappings }) => [family, new HostPortIndex(mappings.map(hostPortsOf))]),
  );
  const isShadowed = ({ protocol, address, port }: Socket): boolean => {
    const isIpv6 = address.includes(':');
    const ports = { protocol, first: port, last: port };
    // A socket bound to `::` accepts IPv4 connections too, unless IPV6_V6ONLY is set, which /proc does not tell.
    if (address === '::') {
      return [...wanted.values()].some((index) => index.overlaps({ ...ports, address: undefined }));
    }
    // Connections to ::1 are never forwarded.
    if (address === '::1') return false;
    const index = wanted.get(isIpv6 ? 'ipv6' : 'ipv4');
    return index?.overlaps({ ...ports, address: address === '0.0.0.0' ? undefined : address }) === true;
  };
  const used = new Set(forwardings.flatMap(({ mappings }) => mappings.map(({ protocol }) => protocol)));
  return (['tcp', 'udp'] as const)
    .filter((protocol) => used.has(protocol))
    .flatMap((protocol) => ['', '6'].flatMap((suffix) => socketsIn(protocol, suffix)))
    .filter(isShadowed);
}

/**
 * A line of /proc/net/tcp (linux/net/ipv4/tcp_ipv4.c, tcp4_seq_show); addresses are 32-bit words in the host's byte order:
 *
 *     sl local_address rem_address   st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
 *      0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345
 */
function socketsIn(protocol: 'tcp' | 'udp', suffix: string): Socket[] {
  const listening = protocol === 'tcp' ? TCP_LISTEN : TCP_CLOSE;
  const sockets: Socket[] = [];
  for (const line of linesOf(`/proc/thread-self/net/${protocol}${suffix}`)) {
    const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/\s+/);
    const [hex = '', port = ''] = local.split(':');
    if (port === '' || hex === 'local_address') continue;
    if (state !== listening) {
      // The kernel lists listening TCP sockets first; there may be any number of connections.
      if (protocol === 'tcp') break;
      continue;
    }
    sockets.push({ protocol, address: addressText(hex), port: Number.parseInt(port, 16), inode });
  }
  return sockets;
}

/** net/tcp_states.h: an unconnected UDP socket has state TCP_CLOSE. */
const TCP_LISTEN = '0A';
const TCP_CLOSE = '07';

/** An IPv4-mapped address (::ffff:192.0.2.1) is given as IPv4. */
function addressText(hex: string): string {
  const bytes = Buffer.from(hex, 'hex').swap32();
  const isMapped = bytes.length === 16 && bytes.toString('hex', 0, 12) === '00000000000000000000ffff';
  const address = addressFromBytes(isMapped ? bytes.subarray(12) : bytes);
  return address === undefined ? '' : formatAddress(address);
}

/** Read in pieces: the caller may need only the beginning. */
function* linesOf(path: string): Generator<string> {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT')) return;
    throw thrown;
  }
  try {
    const chunk = Buffer.alloc(64 * 1024);
    let rest = '';
    for (let size = readSync(fd, chunk); size > 0; size = readSync(fd, chunk)) {
      const lines = (rest + chunk.toString('latin1', 0, size)).split('\n');
      rest = lines.pop() ?? '';
      yield* lines;
    }
    if (rest !== '') yield rest;
  } finally {
    closeSync(fd);
  }
}

/** `process nginx (pid 123)` by the inode of its socket. Processes end while they are looked at. */
function processesOf(inodes: ReadonlySet<string>): Map<string, string> {
  const found = new Map<string, string>();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    if (found.size === inodes.size) break;
    for (const fd of tried(() => readdirSync(`/proc/${pid}/fd`)) ?? []) {
      const target = tried(() => readlinkSync(`/proc/${pid}/fd/${fd}`)) ?? '';
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
      if (inode === undefined || !inodes.has(inode) || found.has(inode)) continue;
      const name = tried(() => readFileSync(`/proc/${pid}/comm`, 'latin1').trim()) ?? '?';
      found.set(inode, `process ${printable(name)} (pid ${pid})`);
    }
  }
  return found;
}

/** A process can give itself any name; a warning is one line. */
function printable(name: string): string {
  return name.replaceAll(/[^\x20-\x7e]/g, '?');
}

function tried<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
