import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
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

const LISTEN = '0A';
const UNCONNECTED = '07';

/**
 * Who holds a port of this network namespace: a sentence for each socket that listens there, by tcp or udp, on any address.
 * Empty when the port is free.
 */
export function portHolders(port: number): string[] {
  const tables = [
    { protocol: 'tcp', state: LISTEN, file: 'tcp' },
    { protocol: 'tcp', state: LISTEN, file: 'tcp6' },
    { protocol: 'udp', state: UNCONNECTED, file: 'udp' },
    { protocol: 'udp', state: UNCONNECTED, file: 'udp6' },
  ];
  const found = tables.flatMap(({ protocol, state, file }) =>
    socketsOf(read(`/proc/self/net/${file}`), port, state).map(
      (inode) => `${protocol} port ${port} is held by ${ownerOf(inode)}`,
    ),
  );
  return [...new Set(found)];
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

/**
 * Inodes of the sockets at `port`. A line of /proc/net/tcp is, counted in columns:
 * `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode`, the local port in hexadecimal behind a colon.
 */
function socketsOf(table: string, port: number, state: string): string[] {
  return linesOf(table)
    .slice(1)
    .map((line) => line.trim().split(/\s+/))
    .filter((columns) => columns[3] === state && parseInt(columns[1]?.split(':')[1] ?? '', 16) === port)
    .map((columns) => columns[9] ?? '');
}

/** Searches the descriptors of every process, as `ss -p` does; processes that end in the meantime are skipped. */
function ownerOf(inode: string): string {
  const wanted = `socket:[${inode}]`;
  for (const pid of list('/proc').filter((name) => /^\d+$/.test(name))) {
    const holds = list(`/proc/${pid}/fd`).some((fd) => link(`/proc/${pid}/fd/${fd}`) === wanted);
    if (holds) return `process ${pid} (${read(`/proc/${pid}/comm`).trim()})`;
  }
  return 'a process of another container or of the kernel';
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function link(file: string): string {
  try {
    return readlinkSync(file);
  } catch {
    return '';
  }
}
