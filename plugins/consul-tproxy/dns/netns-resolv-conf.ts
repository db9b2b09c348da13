import {
  closeSync,
  constants,
  fchmodSync,
  openSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { isErrno } from '../../../shared/kernel/errno.ts';
import { inFolder, removeIfEmpty } from './folder.ts';
import { renderResolvConf, type ResolvConf } from './resolv-conf.ts';

/**
 * /etc/netns/NAME/resolv.conf: what ip-netns(8) puts over /etc/resolv.conf for programs it runs in the namespace NAME.
 *
 *   /etc/netns/NAME/resolv.conf        its first line, "# weft: network=N container=C interface=I", says that it is ours and whose
 *   /etc/netns/NAME/.resolv.conf.weft  while it is being written
 *
 * A file without that line belongs to the operator and is never touched.
 */
export interface ResolvConfOwner {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
}

/** The name that `ip netns` knows the namespace by; undefined for one that only has a path (Docker's, a process's). */
export function netnsName(path: string): string | undefined {
  const name = /^(?:\/var)?\/run\/netns\/([^/]+)$/.exec(path)?.[1];
  return name === '.' || name === '..' ? undefined : name;
}

/**
 * Writes the file, whole or not at all, over an older one of ours.
 * @returns `foreign` when a file is there that is not ours: it was left as it is
 * @throws the error of the system call that failed; a link in the way is ENOTDIR or ELOOP
 */
export function writeNetnsResolvConf(
  name: string,
  owner: ResolvConfOwner,
  conf: ResolvConf,
): 'written' | 'foreign' {
  return retryWhileFolderVanishes(() =>
    inFolder('/etc', ['netns', name], true, (folder) => {
      const there = readOwner(folder);
      if (there === 'foreign') return 'foreign';
      replaceFile(folder, `${markOf(owner)}\n${renderResolvConf(conf)}`);
      return 'written';
    }),
  );
}

/** Removes the file if it is this owner's, then the folder if nothing else is in it. What is gone already is fine. */
export function removeNetnsResolvConf(name: string, isOwner: (owner: ResolvConfOwner) => boolean): void {
  whereFolderExists(() => {
    inFolder('/etc', ['netns', name], false, (folder) => {
      rmSync(`${folder}/${TEMPORARY}`, { force: true });
      const there = readOwner(folder);
      if (typeof there === 'object' && isOwner(there)) rmSync(`${folder}/${FILE}`, { force: true });
    });
    inFolder('/etc', ['netns'], false, (folder) => removeIfEmpty(`${folder}/${name}`));
    inFolder('/etc', [], false, (folder) => removeIfEmpty(`${folder}/netns`));
  });
}

/** The same for every named namespace: for a DEL that no longer knows its namespace, and for GC. */
export function removeEveryNetnsResolvConf(isOwner: (owner: ResolvConfOwner) => boolean): void {
  const names = whereFolderExists(() => inFolder('/etc', ['netns'], false, (folder) => readdirSync(folder)));
  for (const name of names ?? []) {
    const there = whereFolderExists(() => inFolder('/etc', ['netns', name], false, readOwner));
    if (typeof there === 'object' && isOwner(there)) removeNetnsResolvConf(name, isOwner);
  }
}

const FILE = 'resolv.conf';
const TEMPORARY = '.resolv.conf.weft';
const MARK = /^# weft: network=(\S+) container=(\S+) interface=(\S+)$/;

function markOf({ network, containerId, ifname }: ResolvConfOwner): string {
  return `# weft: network=${network} container=${containerId} interface=${ifname}`;
}

function readOwner(folder: string): ResolvConfOwner | 'foreign' | undefined {
  let text: string;
  try {
    text = readFileSync(`${folder}/${FILE}`, {
      encoding: 'utf8',
      // A FIFO in its place must not hang a plugin that holds Nomad's lock.
      flag: constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    });
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT')) return undefined;
    // A link, a folder, a FIFO, a socket: put there by somebody else.
    if (isErrno(thrown, 'ELOOP', 'EISDIR', 'EAGAIN', 'ENXIO')) return 'foreign';
    throw thrown;
  }
  const [, network, containerId, ifname] = MARK.exec(text.split('\n', 1)[0] ?? '') ?? [];
  if (network === undefined || containerId === undefined || ifname === undefined) return 'foreign';
  return { network, containerId, ifname };
}

/** Through a second name in the same folder: a reader sees the old file or the new one, and a crash leaves no half. */
function replaceFile(folder: string, text: string): void {
  const temporary = `${folder}/${TEMPORARY}`;
  rmSync(temporary, { force: true });
  const fd = openSync(
    temporary,
    constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
    0o644,
  );
  try {
    fchmodSync(fd, 0o644);
    writeFileSync(fd, text);
  } finally {
    closeSync(fd);
  }
  renameSync(temporary, `${folder}/${FILE}`);
}

/** The DEL of another allocation removes /etc/netns when it has become empty, possibly between our two steps into it. */
function retryWhileFolderVanishes<T>(work: () => T): T {
  for (let attempt = 1; ; attempt++) {
    try {
      return work();
    } catch (thrown) {
      if (attempt === 5 || !isErrno(thrown, 'ENOENT')) throw thrown;
    }
  }
}

/** A folder that is missing, or is no folder but a link, holds nothing of ours. */
function whereFolderExists<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (thrown) {
    if (isErrno(thrown, 'ENOENT', 'ENOTDIR', 'ELOOP')) return undefined;
    throw thrown;
  }
}
