import { readdirSync, readFileSync, statSync } from 'node:fs';
import { attempt } from '../../shared/kernel/files.ts';
import { listeningSockets, socketInodesOf } from '../../shared/kernel/sockets.ts';
import type { UidRange } from './request.ts';
import { withOwner, type Owner } from './user-namespace.ts';

/** A process in the allocation's network namespace. */
export interface NamespaceProcess {
  readonly pid: number;
  readonly parent: number;
  /** As `ps` shows it, at most 15 characters. */
  readonly name: string;
  /**
   * Effective uid as rules match it: in the user namespace that owns the network namespace. The process may see another one: in a
   * rootless container of user 101, root is 101.
   */
  readonly uid: number;
}

/** All processes in the network namespace that this thread is in, except those that end meanwhile. */
export function processesHere(): NamespaceProcess[] {
  const here = statSync('/proc/thread-self/ns/net', { bigint: true }).ino;
  const isHere = (pid: string): boolean => statSync(`/proc/${pid}/ns/net`, { bigint: true }).ino === here;
  const pids = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .filter((entry) => attempt(() => isHere(entry)) === true)
    .map(Number);
  const toRuleUid = withOwner((owner) => uidMapping(owner, pids));
  return pids.flatMap((pid) => attempt(() => describe(pid, toRuleUid)) ?? []);
}

/** Those of `processes` that have a TCP socket listening on one of these ports in the namespace that this thread is in. */
export function listenersOn(
  ports: readonly number[],
  processes: readonly NamespaceProcess[],
): NamespaceProcess[] {
  const listening = listeningSockets('tcp').filter(({ port }) => ports.includes(port));
  if (listening.length === 0) return [];
  const inodes = new Set(listening.map(({ inode }) => inode));
  return processes.filter(({ pid }) => socketInodesOf(pid).some((inode) => inodes.has(inode)));
}

export interface ProxyIdentity {
  readonly uid: UidRange;
  /** The ports that the proxy listens on. */
  readonly ports: readonly number[];
}

/**
 * Processes that run as the proxy's user and are not the proxy. The rules identify the proxy by its uid alone, so these bypass the mesh
 * (typically images whose program runs as uid 101, such as nginx).
 * The proxy is the process that listens on its ports, with its ancestors and descendants; while none listens, every process named envoy.
 */
export function processesBypassingProxy(
  processes: readonly NamespaceProcess[],
  { uid, ports }: ProxyIdentity,
): NamespaceProcess[] {
  const suspects = processes.filter((one) => one.uid >= uid.first && one.uid <= uid.last);
  const proxies = suspects.length === 0 ? [] : listenersOn(ports, suspects);
  if (proxies.length === 0) return suspects.filter(({ name }) => !name.startsWith('envoy'));
  const family = new Set(
    proxies.flatMap(({ pid }) => [...ancestorsOf(pid, suspects), ...descendantsOf(pid, suspects)]),
  );
  return suspects.filter(({ pid }) => !family.has(pid));
}

/** One line for the log and for `weft show`. */
export function bypassWarning(bypassing: readonly NamespaceProcess[]): string {
  const names = bypassing.map(({ name, pid, uid }) => `${name} (pid ${pid}, uid ${uid})`).join(', ');
  return (
    `not in the mesh: ${names} runs as the proxy's user, so the rules do not intercept its connections; ` +
    'run it as another user, or give the proxy one of its own (transparent_proxy.uid)'
  );
}

/** `pid` itself and its ancestors among `processes`. */
function ancestorsOf(pid: number, processes: readonly NamespaceProcess[]): number[] {
  const found = processes.find((one) => one.pid === pid);
  return found === undefined || found.parent === pid ? [] : [pid, ...ancestorsOf(found.parent, processes)];
}

function descendantsOf(pid: number, processes: readonly NamespaceProcess[]): number[] {
  return processes
    .filter(({ parent }) => parent === pid)
    .flatMap((child) => [child.pid, ...descendantsOf(child.pid, processes)]);
}

function describe(pid: number, toRuleUid: UidMapping): NamespaceProcess {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const field = (name: string): string[] =>
    new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1]?.split('\t') ?? [];
  return {
    pid,
    parent: Number(field('PPid')[0]),
    name: field('Name').join(' '),
    // Real, effective, saved, file system.
    uid: toRuleUid(pid, Number(field('Uid')[1])),
  };
}

/** From a process' uid as this process sees it to the uid that rules match. */
type UidMapping = (pid: number, seen: number) => number;

/** The kernel shows a user namespace's map only through its processes. Where none here is in the owner, each process' own map is used. */
function uidMapping(owner: Owner, pids: readonly number[]): UidMapping {
  if (owner.isOwn) return (_, seen) => seen;
  for (const pid of pids) {
    const map = attempt(() => (owner.has(pid) ? uidMap(pid) : undefined));
    if (map !== undefined) return (_, seen) => mappedUid(map, seen);
  }
  return (pid, seen) => mappedUid(uidMap(pid), seen);
}

function uidMap(pid: number): string {
  return readFileSync(`/proc/${pid}/uid_map`, 'latin1');
}

/**
 * /proc/PID/uid_map, per line: first uid inside, first uid as the reader sees it, count. An unmapped uid is the overflow uid to the process;
 * rules cannot match it.
 */
function mappedUid(map: string, seen: number): number {
  for (const line of map.split('\n')) {
    const [inside = 0, outside = 0, count = 0] = line.trim().split(/\s+/).map(Number);
    if (seen >= outside && seen < outside + count) return inside + seen - outside;
  }
  return OVERFLOW_UID;
}

const OVERFLOW_UID = 65534;
