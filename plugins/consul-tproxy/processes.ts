import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { withOwner, type Owner } from './owner.ts';

/** A process in the allocation's network namespace. */
export interface NamespaceProcess {
  readonly pid: number;
  readonly parent: number;
  /** As `ps` shows it, at most 15 characters. */
  readonly name: string;
  /**
   * Effective uid as rules count it: as the user namespace that owns the network namespace does. The process' own may be another one: in a
   * rootless container that user 101 runs, root is 101.
   */
  readonly uid: number;
}

/** All processes in the network namespace that this thread is in. Those that end while we look are left out. */
export function processesHere(): NamespaceProcess[] {
  const here = statSync('/proc/thread-self/ns/net', { bigint: true }).ino;
  const isHere = (pid: string): boolean => statSync(`/proc/${pid}/ns/net`, { bigint: true }).ino === here;
  const pids = readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .filter((entry) => attempt(() => isHere(entry)) === true)
    .map(Number);
  const toRules = withOwner((owner) => uidsOf(owner, pids));
  return pids.flatMap((pid) => attempt(() => describe(pid, toRules)) ?? []);
}

/** Those of `processes` that have a TCP socket listening on one of these ports in the namespace that this thread is in. */
export function listenersOn(
  ports: readonly number[],
  processes: readonly NamespaceProcess[],
): NamespaceProcess[] {
  const inodes = new Set(['tcp', 'tcp6'].flatMap((table) => listeningInodes(table, ports)));
  if (inodes.size === 0) return [];
  return processes.filter(({ pid }) => socketsOf(pid).some((inode) => inodes.has(inode)));
}

function describe(pid: number, toRules: UidOfRules): NamespaceProcess {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  const field = (name: string): string[] =>
    new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1]?.split('\t') ?? [];
  return {
    pid,
    parent: Number(field('PPid')[0]),
    name: field('Name').join(' '),
    // Real, effective, saved, file system.
    uid: toRules(pid, Number(field('Uid')[1])),
  };
}

/** A process' uid, as this process sees it, in the numbers that rules go by. */
type UidOfRules = (pid: number, seen: number) => number;

/** The kernel shows a user namespace's map by its processes only. Where none of ours is in the owner, each is taken by its own word. */
function uidsOf(owner: Owner, pids: readonly number[]): UidOfRules {
  if (owner.isOurs) return (_, seen) => seen;
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
 * /proc/PID/uid_map lists, a line each: first uid inside, first uid as we see it, how many. A uid without a place in it is
 * the overflow uid to the process; rules cannot name it.
 */
function mappedUid(map: string, seen: number): number {
  for (const line of map.split('\n')) {
    const [inside = 0, outside = 0, count = 0] = line.trim().split(/\s+/).map(Number);
    if (seen >= outside && seen < outside + count) return inside + seen - outside;
  }
  return OVERFLOW_UID;
}

const OVERFLOW_UID = 65534;
/** TCP_LISTEN of net/tcp_states.h as /proc/net/tcp prints it. */
const LISTENING = '0A';

/** /proc/net/tcp: number, local address:port in hex, remote, state, queues, timer, retransmits, uid, timeout, inode, … */
function listeningInodes(table: string, ports: readonly number[]): string[] {
  const lines = attempt(() => readFileSync(`/proc/thread-self/net/${table}`, 'latin1').split('\n')) ?? [];
  return lines.flatMap((line) => {
    const [, local = '', , state, , , , , , inode] = line.trim().split(/\s+/);
    const port = Number.parseInt(local.split(':')[1] ?? '', 16);
    return state === LISTENING && ports.includes(port) && inode !== undefined ? [inode] : [];
  });
}

function socketsOf(pid: number): string[] {
  const folder = `/proc/${pid}/fd`;
  const fds = attempt(() => readdirSync(folder)) ?? [];
  return fds.flatMap((fd) => {
    const inode = /^socket:\[(\d+)\]$/.exec(attempt(() => readlinkSync(`${folder}/${fd}`)) ?? '')?.[1];
    return inode === undefined ? [] : [inode];
  });
}

/** Processes come and go while /proc is read, and some files of some are not for us. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
