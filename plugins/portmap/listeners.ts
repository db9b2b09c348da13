import { toCniError } from '../../shared/cni/errors.ts';
import { listeningSockets, processesWithSockets, type ListeningSocket } from '../../shared/kernel/sockets.ts';
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
    const processes = processesWithSockets(new Set(sockets.map(({ inode }) => inode)));
    const lines = sockets.map(({ protocol, address, port, inode }) => {
      const host = address.includes(':') ? `[${address}]` : address;
      const found = processes.get(inode);
      const listener =
        found === undefined ? 'a program on the host' : `process ${found.name} (pid ${found.pid})`;
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
