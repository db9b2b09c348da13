import { readdirSync, readFileSync } from 'node:fs';
import { toCniError } from '../../shared/cni/errors.ts';
import { attempt } from '../../shared/kernel/files.ts';
import { listeningSockets, socketInodesOf, type ListeningSocket } from '../../shared/kernel/sockets.ts';
import type { PortForwarding } from './backend.ts';
import { HostPortIndex, hostPortsOf } from './mapping.ts';

/**
 * Warns of programs on the host that listen on published ports: connections reach the container instead of them. Names are looked up
 * below /proc only if there is such a program. A failure is only a warning.
 */
export function warnOfListeners(forwardings: readonly PortForwarding[], warn: (line: string) => void): void {
  try {
    const sockets = socketsBehind(forwardings);
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
const ANY = ['0.0.0.0', '::'];

function socketsBehind(forwardings: readonly PortForwarding[]): ListeningSocket[] {
  const wanted = new Map(
    forwardings.map(({ family, mappings }) => [family, new HostPortIndex(mappings.map(hostPortsOf))]),
  );
  const isShadowed = ({ protocol, address, port, ipv6Only }: ListeningSocket): boolean => {
    const isIpv6 = address.includes(':');
    const ports = { protocol, first: port, last: port };
    if (address === '::' && !ipv6Only) {
      return [...wanted.values()].some((index) => index.overlaps({ ...ports, address: undefined }));
    }
    // Connections to ::1 are never forwarded.
    if (address === '::1') return false;
    const index = wanted.get(isIpv6 ? 'ipv6' : 'ipv4');
    return index?.overlaps({ ...ports, address: ANY.includes(address) ? undefined : address }) === true;
  };
  const used = new Set(forwardings.flatMap(({ mappings }) => mappings.map(({ protocol }) => protocol)));
  return (['tcp', 'udp'] as const)
    .filter((protocol) => used.has(protocol))
    .flatMap(listeningSockets)
    .filter(isShadowed);
}

/** `process nginx (pid 123)` by the inode of its socket. Processes end while they are looked at. */
function processesOf(inodes: ReadonlySet<number>): Map<number, string> {
  const found = new Map<number, string>();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    if (found.size === inodes.size) break;
    for (const inode of socketInodesOf(pid)) {
      if (!inodes.has(inode) || found.has(inode)) continue;
      const name = attempt(() => readFileSync(`/proc/${pid}/comm`, 'latin1').trim()) ?? '?';
      found.set(inode, `process ${printable(name)} (pid ${pid})`);
    }
  }
  return found;
}

/** A process can give itself any name; a warning is one line. */
function printable(name: string): string {
  return name.replaceAll(/[^\x20-\x7e]/g, '?');
}
