import { trace } from '../../../shared/process/trace.ts';
import {
  closeSync,
  constants,
  fchmodSync,
  mkdirSync,
  openSync,
  lstatSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { CniError } from '../../../shared/cni/errors.ts';
import type { Invocation } from '../../../shared/cni/plugin.ts';
import type { CniDns } from '../../../shared/cni/results.ts';
import { isErrno } from '../../../shared/kernel/errno.ts';
import { readRegularFile } from '../../../shared/kernel/files.ts';
import { hostResolvConf, renderResolvConf, type ResolvConf } from './resolv-conf.ts';

/**
 * /etc/netns/NAME/resolv.conf, which ip-netns(8) mounts over /etc/resolv.conf for programs that it runs in the namespace NAME.
 *
 *   /etc/netns/NAME/resolv.conf        first line "# weft: network=N container=C interface=I": written by this plugin, for that attachment
 *   /etc/netns/NAME/.resolv.conf.weft  while it is being written
 *
 * A file without that line belongs to the operator and is never changed.
 */
export interface ResolvConfOwner {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
}

type Call = ResolvConfOwner & Pick<Invocation<unknown>, 'netns' | 'warn'>;

/**
 * Writes the file for a namespace with a name. Nomad gives its tasks the DNS of the result instead, so a host whose /etc cannot be written
 * gets a warning, not an error.
 * @param dns of the result; undefined when the allocation has no Consul DNS: an older file of this attachment is removed
 */
export function writeResolvConf(call: Call, dns: CniDns | undefined): void {
  const name = netnsName(call.netns);
  if (name === undefined) return;
  try {
    if (dns === undefined) {
      removeNetnsResolvConf(name, isOwner(call));
      return;
    }
    const host = hostResolvConf();
    const outcome = writeNetnsResolvConf(name, call, {
      nameservers: dns.nameservers ?? [],
      search: nonEmpty(dns.search) ?? host.search,
      options: nonEmpty(dns.options) ?? host.options,
    });
    if (outcome === 'unmanaged')
      call.warn(
        `/etc/netns/${name}/resolv.conf: not written by this plugin, not changed; it may lack Consul DNS`,
      );
  } catch (thrown) {
    const reason = thrown instanceof Error ? thrown.message : String(thrown);
    call.warn(`cannot write /etc/netns/${name}/resolv.conf: ${reason}`);
  }
}

/** Removes this attachment's file: under the name in the path, else wherever it is, because runtimes also pass stale paths. */
export function removeResolvConf(call: Call): void {
  const name = netnsName(call.netns);
  const isRemoved = name !== undefined && removeNetnsResolvConf(name, isOwner(call));
  if (!isRemoved) removeEveryNetnsResolvConf(isOwner(call));
}

/** GC: the files of this network whose attachment is not valid any more. Without a list of valid ones nothing is known to be stale. */
export function removeStaleResolvConf(call: Pick<Invocation<unknown>, 'network' | 'validAttachments'>): void {
  const { network, validAttachments: valid } = call;
  if (valid === undefined) return;
  const isValid = (owner: ResolvConfOwner): boolean =>
    valid.some(({ containerID, ifname }) => containerID === owner.containerId && ifname === owner.ifname);
  removeEveryNetnsResolvConf((owner) => owner.network === network && !isValid(owner));
}

function isOwner({ network, containerId, ifname }: ResolvConfOwner): (owner: ResolvConfOwner) => boolean {
  return (owner) => owner.network === network && owner.containerId === containerId && owner.ifname === ifname;
}

function nonEmpty(list: readonly string[] | undefined): readonly string[] | undefined {
  return list === undefined || list.length === 0 ? undefined : list;
}

/** The name that `ip netns` knows the namespace by; undefined for one that only has a path (Docker's, a process's). */
export function netnsName(path: string): string | undefined {
  const name = /^(?:\/var)?\/run\/netns\/([^/]+)$/.exec(path)?.[1];
  return name === '.' || name === '..' ? undefined : name;
}

/**
 * Writes the file, completely or not at all, over an older one of this plugin.
 * @returns `unmanaged` when a file is there that this plugin did not write: it is unchanged
 * @throws the error of the system call that failed; ENOTDIR or ELOOP for a symbolic link on the path
 */
export function writeNetnsResolvConf(
  name: string,
  owner: ResolvConfOwner,
  conf: ResolvConf,
): 'written' | 'unmanaged' {
  return retryWhileDirectoryVanishes(() =>
    inDirectory('/etc', ['netns', name], true, (directory) => {
      if (readOwner(`${directory}/${FILE}`) === 'unmanaged') return 'unmanaged';
      replaceFile(directory, `${markOf(owner)}\n${renderResolvConf(conf)}`);
      return 'written';
    }),
  );
}

/** Removes the file if it is this owner's, then the directory if it is empty. @returns whether the file was this owner's */
export function removeNetnsResolvConf(name: string, isOwner: (owner: ResolvConfOwner) => boolean): boolean {
  // Step by step: a call that was killed may have left any of them.
  const isRemoved = ifDirectoryExists(() =>
    inDirectory('/etc', ['netns', name], false, (directory) => {
      rmSync(`${directory}/${TEMPORARY}`, { force: true });
      const owner = readOwner(`${directory}/${FILE}`);
      if (typeof owner !== 'object' || !isOwner(owner)) return false;
      rmSync(`${directory}/${FILE}`, { force: true });
      return true;
    }),
  );
  ifDirectoryExists(() =>
    inDirectory('/etc', ['netns'], false, (directory) => removeIfEmpty(`${directory}/${name}`)),
  );
  ifDirectoryExists(() => inDirectory('/etc', [], false, (directory) => removeIfEmpty(`${directory}/netns`)));
  return isRemoved === true;
}

/**
 * The same for every named namespace: for a DEL that does not know its namespace, and for GC. Also removes what a call that was killed
 * while writing left: a temporary file of the owner, or an empty one that is too old to be in use.
 */
export function removeEveryNetnsResolvConf(isOwner: (owner: ResolvConfOwner) => boolean): void {
  const names = ifDirectoryExists(() => inDirectory('/etc', ['netns'], false, (netns) => readdirSync(netns)));
  for (const name of names ?? []) {
    const isAffected = ifDirectoryExists(() =>
      inDirectory('/etc', ['netns', name], false, (directory) =>
        [FILE, TEMPORARY].some((file) => {
          const owner = readOwner(`${directory}/${file}`);
          if (typeof owner === 'object') return isOwner(owner);
          return file === TEMPORARY && owner === 'unmanaged' && isOld(`${directory}/${file}`);
        }),
      ),
    );
    if (isAffected === true) removeNetnsResolvConf(name, isOwner);
  }
}

/** The files of this plugin, with the names of their namespaces. */
export function ownedResolvConfs(): { name: string; owner: ResolvConfOwner; writtenAtMs: number }[] {
  const names = ifDirectoryExists(() => inDirectory('/etc', ['netns'], false, (netns) => readdirSync(netns)));
  return (names ?? []).flatMap((name) => {
    const found = ifDirectoryExists(() =>
      inDirectory('/etc', ['netns', name], false, (directory) => {
        const owner = readOwner(`${directory}/${FILE}`);
        const writtenAtMs = lstatSync(`${directory}/${FILE}`, { throwIfNoEntry: false })?.mtimeMs;
        return typeof owner === 'object' && writtenAtMs !== undefined
          ? { name, owner, writtenAtMs }
          : undefined;
      }),
    );
    return found ?? [];
  });
}

/** A call writes its file within seconds. */
const OLD_MS = 60_000;

function isOld(file: string): boolean {
  const modifiedMs = lstatSync(file, { throwIfNoEntry: false })?.mtimeMs;
  return modifiedMs !== undefined && Date.now() - modifiedMs > OLD_MS;
}

const FILE = 'resolv.conf';
const TEMPORARY = '.resolv.conf.weft';
const MARK = /^# weft: network=(\S+) container=(\S+) interface=(\S+)$/;

function markOf({ network, containerId, ifname }: ResolvConfOwner): string {
  return `# weft: network=${network} container=${containerId} interface=${ifname}`;
}

function readOwner(file: string): ResolvConfOwner | 'unmanaged' | undefined {
  let text: string | undefined;
  try {
    text = readRegularFile(file, { followLinks: false });
  } catch (thrown) {
    // A symbolic link, a directory, a FIFO, a huge file: not written by this plugin.
    if (thrown instanceof CniError) return 'unmanaged';
    throw thrown;
  }
  if (text === undefined) return undefined;
  const [, network, containerId, ifname] = MARK.exec(text.split('\n', 1)[0] ?? '') ?? [];
  if (network === undefined || containerId === undefined || ifname === undefined) return 'unmanaged';
  return { network, containerId, ifname };
}

/** By renaming, so that a reader finds the old file or the new one, and a crash leaves no half of it. */
function replaceFile(directory: string, text: string): void {
  const temporary = `${directory}/${TEMPORARY}`;
  rmSync(temporary, { force: true });
  const fd = openSync(
    temporary,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o644,
  );
  try {
    fchmodSync(fd, 0o644);
    trace(() => `write ${directory}/${FILE}: ${JSON.stringify(text)}`);
    writeFileSync(fd, text);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, `${directory}/${FILE}`);
}

/** The DEL of another allocation removes an empty /etc/netns, possibly between two steps of this call. */
function retryWhileDirectoryVanishes<T>(work: () => T): T {
  for (let attempt = 1; ; attempt++) {
    try {
      return work();
    } catch (thrown) {
      if (attempt === 5 || !isErrno(thrown, 'ENOENT')) throw thrown;
    }
  }
}

/** Undefined when the directory is missing, or the path leads through a link or a file: neither holds a file of this plugin. */
function ifDirectoryExists<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT', 'ENOTDIR', 'ELOOP')) return undefined;
    throw thrown;
  }
}

/**
 * Runs `work` with the directory `base/names[0]/names[1]/…`, opened step by step without following symbolic links: root writes here, and a
 * link at a predictable name would redirect the write. Node has no openat(2); /proc/self/fd/N/name is equivalent.
 * @param base trusted, e.g. /etc; may be a link
 * @param work gets a path that stays this directory when names change
 * @throws the errors of open(2): ENOENT when a step is missing and must not be created, ENOTDIR when it is a link or a file
 */
function inDirectory<T>(
  base: string,
  names: readonly string[],
  create: boolean,
  work: (directory: string) => T,
): T {
  const fds = [openSync(base, constants.O_RDONLY | constants.O_DIRECTORY)];
  try {
    for (const name of names) fds.push(openStep(`/proc/self/fd/${fds.at(-1) ?? 0}/${name}`, create));
    return work(`/proc/self/fd/${fds.at(-1) ?? 0}`);
  } finally {
    for (const fd of fds) closeSync(fd);
  }
}

function openStep(path: string, create: boolean): number {
  const isNew = create && makeDirectory(path);
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  // Independent of the runtime's umask: programs inside the namespace that read here are not root.
  if (isNew) fchmodSync(fd, 0o755);
  return fd;
}

/** @returns whether it did not exist */
function makeDirectory(path: string): boolean {
  try {
    mkdirSync(path);
    return true;
  } catch (thrown) {
    if (isErrno(thrown, 'EEXIST')) return false;
    throw thrown;
  }
}

function removeIfEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch (thrown) {
    if (!isErrno(thrown, 'ENOENT', 'ENOTEMPTY', 'EEXIST', 'ENOTDIR', 'EBUSY')) throw thrown;
  }
}
