import { readFileSync } from 'node:fs';
import { listeningSockets, processesWithSockets } from '../../shared/kernel/sockets.ts';
import { linesOf, tool, toolIfThere } from './tool.ts';

export interface HostFacts {
  /** The host's address by which others reach it; undefined when it has only its loopback. */
  readonly address: string | undefined;
  /** Destinations of every route, of both families. */
  readonly routes: readonly string[];
  /** Name servers that the host itself asks. */
  readonly recursors: readonly string[];
}

interface Route {
  readonly dst: string;
  readonly prefsrc?: string;
}

interface Link {
  readonly ifname: string;
  readonly addr_info: readonly { local?: string; scope: string }[];
}

/** An address of TEST-NET-3: only asked where it would be sent. */
const ELSEWHERE = '203.0.113.1';

export function readHostFacts(): HostFacts {
  const ipv6 = toolIfThere('ip', ['-j', '-6', 'route', 'show', 'table', 'all']);
  const routes = [tool('ip', ['-j', '-4', 'route', 'show', 'table', 'all']), ipv6].flatMap((text) =>
    parse<Route>(text),
  );
  return { address: primaryAddress(), routes: routes.map(({ dst }) => dst), recursors: recursors() };
}

/** The source address of traffic to the world; without a way there, the first address of an interface that is no loopback. */
function primaryAddress(): string | undefined {
  const [way] = parse<Route>(toolIfThere('ip', ['-j', '-4', 'route', 'get', ELSEWHERE]));
  if (way?.prefsrc !== undefined) return way.prefsrc;
  const links = parse<Link>(tool('ip', ['-j', '-4', 'addr', 'show'])).filter(({ ifname }) => ifname !== 'lo');
  return links.flatMap(({ addr_info }) => addr_info).find(({ scope }) => scope === 'global')?.local;
}

/** Whatever the host asks itself; a stub on its loopback answers as well, because the example's DNS runs in the host's namespace. */
function recursors(): string[] {
  const named = linesOf(read('/etc/resolv.conf'))
    .map((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1])
    .filter((server) => server !== undefined)
    // A zone (fe80::1%eth0) means nothing to a process elsewhere.
    .filter((server) => !server.includes('%'));
  return [...new Set(named)];
}

function parse<T>(json: string): T[] {
  return json.trim() === '' ? [] : (JSON.parse(json) as T[]);
}

function read(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

/**
 * Who holds a port of this network namespace: a sentence for each socket that listens there, by tcp or udp, on any address.
 * Empty when the port is free.
 */
export function portHolders(port: number): string[] {
  const sockets = (['tcp', 'udp'] as const)
    .flatMap(listeningSockets)
    .filter((socket) => socket.port === port);
  if (sockets.length === 0) return [];
  const processes = processesWithSockets(new Set(sockets.map(({ inode }) => inode)));
  const holders = sockets.map(({ protocol, inode }) => {
    const found = processes.get(inode);
    const holder =
      found === undefined
        ? 'a process of another container or of the kernel'
        : `process ${found.pid} (${found.name})`;
    return `${protocol} port ${port} is held by ${holder}`;
  });
  return [...new Set(holders)];
}

/**
 * Rules that send a port of the host elsewhere (a container engine's port mapping has no socket to be seen), out of the output of
 * `iptables-save` and `nft list ruleset`.
 */
export function portRedirections(rules: readonly string[], port: number): string[] {
  const here = new RegExp(`(--dports?|--destination-ports?|\\bdport) [{\\s\\d,:-]*\\b${port}\\b`);
  const away = /-j (DNAT|REDIRECT)\b|-j CNI-DN-|\b(dnat|redirect)\b/;
  return rules.filter((rule) => here.test(rule) && away.test(rule)).map((rule) => rule.trim());
}
