import { readFileSync } from 'node:fs';
import { isErrno } from '../../../shared/kernel/errno.ts';

/** What a resolv.conf(5) says, in the order it says it. `sortlist` and unknown keywords are left out. */
export interface ResolvConf {
  readonly nameservers: readonly string[];
  /** From `search`, or from `domain`, which is a search list of one: the last of either counts. */
  readonly search: readonly string[];
  readonly options: readonly string[];
}

/** Never fails: like the C library, it passes over what it does not understand. */
export function parseResolvConf(text: string): ResolvConf {
  const nameservers: string[] = [];
  const options: string[] = [];
  let search: string[] = [];
  for (const line of text.split('\n')) {
    // Keywords and comments start in the first column, for the C library as well.
    const [keyword, ...words] = line.split(/[ \t\r]+/).filter((word, at) => word !== '' || at === 0);
    if (keyword === 'nameserver') nameservers.push(...words.slice(0, 1));
    if (keyword === 'search') search = words;
    if (keyword === 'domain') search = words.slice(0, 1);
    if (keyword === 'options') options.push(...words);
  }
  return { nameservers, search, options };
}

/** The file's text. Order and spelling are those of the file that Nomad gives to tasks. */
export function renderResolvConf({ nameservers, search, options }: ResolvConf): string {
  const lines = [
    ...nameservers.map((server) => `nameserver ${server}`),
    ...(search.length === 0 ? [] : [`search ${search.join(' ')}`]),
    ...(options.length === 0 ? [] : [`options ${options.join(' ')}`]),
  ];
  return lines.map((line) => `${line}\n`).join('');
}

/**
 * How the host itself resolves. Where /etc/resolv.conf names nothing but systemd's stub, which listens on the host's loopback only, it is
 * the file behind it that tells (Nomad reads the same two). A host without any has no preferences.
 */
export function hostResolvConf(): ResolvConf {
  const host = parseResolvConf(readIfPresent('/etc/resolv.conf') ?? '');
  if (host.nameservers.length !== 1 || host.nameservers[0] !== SYSTEMD_STUB) return host;
  const behind = readIfPresent('/run/systemd/resolve/resolv.conf');
  return behind === undefined ? host : parseResolvConf(behind);
}

const SYSTEMD_STUB = '127.0.0.53';

function readIfPresent(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (thrown) {
    // A dangling link, or a folder in its place: then the host resolves by other means, and so be it.
    if (isErrno(thrown, 'ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP')) return undefined;
    throw thrown;
  }
}
