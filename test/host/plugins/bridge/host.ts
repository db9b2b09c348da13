import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';

/** The test file's own host (see test/support/own-host.sh): shell commands, namespaces, and what is there. */

export function sh(command: string): string {
  return execFileSync('sh', ['-ec', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Exit code instead of an exception. */
export function succeeds(command: string): boolean {
  return spawnSync('sh', ['-ec', command], { stdio: 'ignore' }).status === 0;
}

/** `ip -j` of the host, or of a named namespace. */
export function ip<T = Link>(command: string, namespace?: string): T[] {
  const inside = namespace === undefined ? '' : `-n ${namespace} `;
  const text = sh(`ip -j -d ${inside}${command}`).trim();
  return text === '' ? [] : (JSON.parse(text) as T[]).filter((one) => Object.keys(one as object).length > 0);
}

export interface Link {
  readonly ifindex: number;
  readonly ifname: string;
  readonly flags: readonly string[];
  readonly mtu: number;
  readonly operstate: string;
  readonly address: string;
  readonly master?: string;
  readonly ifalias?: string;
  readonly promiscuity?: number;
  readonly linkinfo?: { readonly info_kind?: string; readonly info_slave_data?: Record<string, unknown> };
}

export interface Route {
  readonly dst: string;
  readonly gateway?: string;
  readonly dev?: string;
  readonly metric?: number;
  readonly metrics?: readonly Record<string, number>[];
  readonly scope?: string;
  readonly nexthops?: readonly { readonly gateway: string }[];
}

export function link(name: string, namespace?: string): Link | undefined {
  return ip(`link show`, namespace).find(({ ifname }) => ifname === name);
}

/** Global addresses with prefix length, sorted. */
export function addressesOf(name: string, namespace?: string): string[] {
  interface Shown {
    ifname: string;
    addr_info: { local: string; prefixlen: number; scope: string }[];
  }
  const shown = ip<Shown>('addr show', namespace).find(({ ifname }) => ifname === name);
  return (shown?.addr_info ?? [])
    .filter(({ scope }) => scope === 'global')
    .map(({ local, prefixlen }) => `${local}/${prefixlen}`)
    .sort();
}

export function routesOf(namespace: string, family: 4 | 6 = 4): Route[] {
  return ip<Route>(`-${family} route show`, namespace);
}

/** Makes an empty namespace; gives the path for CNI_NETNS. */
export function makeNamespace(name: string): string {
  sh(`ip netns add ${name}`);
  return `/run/netns/${name}`;
}

/** Takes away all that tests make, so that the next one starts on a fresh host. Few processes: some tests do it a hundred times. */
export function cleanHost(): void {
  stopHelpers();
  const namespaces = existsSync('/run/netns') ? readdirSync('/run/netns') : [];
  const links = ip('link show').filter(
    ({ ifname, linkinfo }) => ifname !== 'lo' && linkinfo?.info_kind !== undefined,
  );
  const commands = [
    ...namespaces.map((name) => `netns del ${name}`),
    ...links.map(({ ifname }) => `link del ${ifname}`),
    'addr flush dev lo scope global',
    'route flush table main',
  ];
  // One end of a pair goes with the other, so some of these find nothing, which -force passes over.
  spawnSync('ip', ['-force', '-batch', '-'], { input: commands.join('\n'), timeout: 20_000 });
  sh('nft flush ruleset');
  if (hasLegacyNat(4)) sh('iptables-legacy -t nat -F; iptables-legacy -t nat -X');
  if (hasLegacyNat(6)) sh('ip6tables-legacy -t nat -F; ip6tables-legacy -t nat -X');
  rmSync('/run/cni', { recursive: true, force: true });
  rmSync('/var/lib/cni/results', { recursive: true, force: true });
  rmSync('/etc/weft', { recursive: true, force: true });
  for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding'])
    writeFileSync(`/proc/sys/${path}`, '0');
}

/** Looking at a legacy table brings it into being, so it is asked for first. */
function hasLegacyNat(family: 4 | 6): boolean {
  const names = family === 4 ? '/proc/net/ip_tables_names' : '/proc/net/ip6_tables_names';
  return existsSync(names) && readFileSync(names, 'utf8').split('\n').includes('nat');
}

/** A bridge network whose leases lie in /run/cni. */
export function network(own: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    cniVersion: '1.0.0',
    name: 'net1',
    type: 'bridge',
    bridge: 'br0',
    isGateway: true,
    ipam: ipam(['10.88.0.0/16']),
    ...own,
  };
}

export const DUAL = ['10.88.0.0/16', 'fd00:88::/64'];

export function ipam(subnets: readonly string[], own: Record<string, unknown> = {}): Record<string, unknown> {
  const routes = subnets.map((subnet) => ({ dst: subnet.includes(':') ? '::/0' : '0.0.0.0/0' }));
  const ranges = subnets.map((subnet) => [{ subnet }]);
  return { type: 'host-local', ranges, routes, dataDir: '/run/cni', ...own };
}

/** Caches the configuration and result of an ADD as libcni does; `cleanHost` removes it. */
export function cacheResult(
  config: Record<string, unknown>,
  { id, ifname = 'eth0' }: { id: string; ifname?: string },
): void {
  const { cniVersion, name, ...plugin } = config;
  const list = Buffer.from(JSON.stringify({ cniVersion, name, plugins: [plugin] })).toString('base64');
  const entry = {
    kind: 'cniCacheV1',
    containerId: id,
    config: list,
    ifName: ifname,
    networkName: name,
    result: {},
  };
  mkdirSync('/var/lib/cni/results', { recursive: true });
  writeFileSync(`/var/lib/cni/results/${String(name)}-${id}-${ifname}`, JSON.stringify(entry));
}

/** Files of a network's leases (not its bookkeeping): address -> content. */
export function leases(name = 'net1'): Record<string, string> {
  const folder = `/run/cni/${name}`;
  const files = existsSync(folder) ? readdirSync(folder) : [];
  const addresses = files.filter((file) => file !== 'lock' && !file.startsWith('last_reserved_ip'));
  return Object.fromEntries(
    addresses.sort().map((file) => [file, readFileSync(`${folder}/${file}`, 'utf8')]),
  );
}

/** The nat table of a family, of both variants of iptables, without what changes by itself. */
export function natRules(family: 4 | 6 = 4): string[] {
  const tool = family === 4 ? 'iptables' : 'ip6tables';
  return sh(`${tool}-nft-save -t nat; ${hasLegacyNat(family) ? `${tool}-legacy-save -t nat` : ''}`)
    .split('\n')
    .filter((line) => /^(-A|:CNI)/.test(line))
    .map((line) => line.replace(/ \[.*/, ''));
}

/** Rules and private chains of ours in nftables' own tables; the tables themselves are shared, and stay. */
export function nftRules(): string[] {
  return sh('nft -s list ruleset inet; nft -s list ruleset bridge')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => /comment "|cni-br-iface/.test(line));
}

interface WithAddresses extends Link {
  readonly addr_info: readonly {
    readonly local: string;
    readonly prefixlen: number;
    readonly scope: string;
  }[];
}

/** All that an ADD may change on the host; two of these are compared. */
export function hostState(): Record<string, unknown> {
  const links = ip<WithAddresses>('addr show').map((one) => ({
    name: one.ifname,
    mac: one.address,
    mtu: one.mtu,
    master: one.master,
    alias: one.ifalias,
    flags: one.flags.filter((flag) => flag === 'UP' || flag === 'PROMISC'),
    addresses: one.addr_info
      .filter(({ scope }) => scope === 'global')
      .map(({ local, prefixlen }) => `${local}/${prefixlen}`)
      .sort(),
  }));
  return { links, nat: [natRules(4), natRules(6)], nftables: nftRules(), leases: leases() };
}

export function readSysctl(path: string, namespace?: string): string {
  const inside = namespace === undefined ? '' : `ip netns exec ${namespace} `;
  return sh(`${inside}cat /proc/sys/${path}`).trim();
}

const helpers: ChildProcess[] = [];

/** Runs a program of test/plugins/bridge/ in a namespace (undefined: the host) until the test ends; resolves at its first line. */
export async function startHelper(
  file: string,
  namespace: string | undefined,
  args: readonly string[] = [],
): Promise<{ ask: (line: string) => Promise<string> }> {
  const script = resolve(import.meta.dirname, file);
  const node = [process.execPath, '--no-warnings', script, ...args];
  const words = namespace === undefined ? node : ['ip', 'netns', 'exec', namespace, ...node];
  const [program = '', ...rest] = words;
  const child = spawn(program, rest, { stdio: ['pipe', 'pipe', 'inherit'] });
  helpers.push(child);
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done === true) throw new Error(`${file} ended`);
    return value;
  };
  await next();
  return {
    ask: async (line) => {
      child.stdin.write(`${line}\n`);
      return next();
    },
  };
}

export function stopHelpers(): void {
  for (const child of helpers.splice(0)) child.kill('SIGKILL');
}

export function makeFolder(path: string): string {
  mkdirSync(path, { recursive: true });
  return path;
}
