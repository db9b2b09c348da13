import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { MARKS_DIRECTORY } from '../../shared/cni/call-marks.ts';
import { EMPTY_TABLE, iptablesTables, withoutEmptyChains, xtablesRules } from './shared-rules.ts';
import { isMountPoint, linesOf, toolIfThere } from './tool.ts';

/** What the example might leave behind on a host, as sorted lines of text under a heading each: compared before and after. */
export interface Footprint {
  readonly interfaces: readonly string[];
  readonly routes: readonly string[];
  readonly namespaces: readonly string[];
  readonly rules: readonly string[];
  /** Of iptables-nft, also without rules. */
  readonly tables: readonly string[];
  readonly mounts: readonly string[];
  readonly files: readonly string[];
  readonly processes: readonly string[];
  readonly settings: readonly string[];
}

/** Folders into which CNI plugins and runtimes write. */
const FOLDERS = [
  '/etc/netns',
  '/var/lib/cni',
  '/run/cni',
  '/var/run/cni',
  '/run/weft',
  '/run/weft-countdash',
  '/var/lib/weft',
];
/** Directory of named namespaces. `ip netns` creates it and makes it a mount point, so that the directory itself is compared too. */
export const NETNS_FOLDER = '/run/netns';
const SETTINGS = ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding'];

/** The kernel's own doing for each interface, seconds after it came up: they say no more than the interface itself. */
const LINK_LOCAL = /\b(fe80:|ff00:)/;

/** @param ownProcesses text that appears in the command lines of the example's processes */
export function takeFootprint(ownProcesses: string): Footprint {
  return {
    interfaces: linesOf(toolIfThere('ip', ['-br', 'addr', 'show']))
      .map(interfaceLine)
      .sort(),
    routes: [['-4'], ['-6']]
      .flatMap((family) => linesOf(toolIfThere('ip', [...family, 'route', 'show', 'table', 'all'])))
      .filter((line) => !LINK_LOCAL.test(line))
      .map((line) => line.replace(/ (expires \d+sec|error -?\d+|pref \w+)/g, '').trim())
      .sort(),
    namespaces: linesOf(toolIfThere('ip', ['netns', 'list']))
      .map((line) => line.split(' ')[0] ?? '')
      .sort(),
    rules: takeRules(),
    tables: iptablesTables(toolIfThere('nft', ['-s', 'list', 'ruleset'])).sort(),
    mounts: netnsFolderIsMounted() ? [NETNS_FOLDER] : [],
    files: [
      // The node agent removes the marks of calls.
      ...[...new Set(FOLDERS.map(realFolder).flatMap(filesUnder))].filter(
        (path) => !path.startsWith(MARKS_DIRECTORY),
      ),
      ...(existsSync(NETNS_FOLDER) ? [`${NETNS_FOLDER}/`] : []),
    ].sort(),
    processes: processesWith(ownProcesses),
    settings: SETTINGS.map((name) => `${name} = ${setting(name)}`),
  };
}

/** Every rule of the host's packet filters. Built-in chains without rules are ignored: listing a table creates them. */
export function takeRules(): string[] {
  const xtables = ['iptables-save', 'ip6tables-save', 'iptables-legacy-save', 'ip6tables-legacy-save'];
  return [
    ...xtables.flatMap((program) =>
      xtablesRules(toolIfThere(program, [])).map((rule) => `${program.replace('-save', '')} ${rule}`),
    ),
    ...nftRules(toolIfThere('nft', ['-s', 'list', 'ruleset'])),
  ];
}

/** What one has and the other lacks, each line behind its heading. */
export function compareFootprints(
  before: Footprint,
  after: Footprint,
): { added: string[]; removed: string[] } {
  const headings = Object.keys(before) as (keyof Footprint)[];
  const missing = (from: Footprint, to: Footprint): string[] =>
    headings.flatMap((heading) =>
      from[heading].filter((line) => !to[heading].includes(line)).map((line) => `${heading}: ${line.trim()}`),
    );
  return { added: missing(after, before), removed: missing(before, after) };
}

/** The text of `nft list ruleset` without empty accepting base chains and without tables that hold nothing else. */
export function nftRules(ruleset: string): string[] {
  const told = withoutEmptyChains(ruleset).replace(EMPTY_TABLE, '');
  let table = '';
  let chain = '';
  return linesOf(told).flatMap((line) => {
    if (/^table /.test(line)) table = line.replace(' {', '');
    const [, opened] = /^\t(\S+ \S+) \{/.exec(line) ?? [];
    if (opened !== undefined) chain = opened;
    return /^\s*\}$/.test(line)
      ? []
      : [`nft ${[table, chain, line.trim()].filter((part) => part !== '').join(' | ')}`];
  });
}

function interfaceLine(line: string): string {
  const [name = '', , ...addresses] = line.trim().split(/\s+/);
  const kept = addresses.filter((address) => !LINK_LOCAL.test(address));
  return [name.replace(/@.*/, ''), ...kept.sort()].join(' ');
}

function filesUnder(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
      const path = join(folder, entry.name);
      return entry.isDirectory() ? [`${path}/`, ...filesUnder(path)] : [path];
    });
  } catch {
    return [];
  }
}

export function netnsFolderIsMounted(): boolean {
  return isMountPoint(NETNS_FOLDER, readFileSync('/proc/self/mountinfo', 'latin1'));
}

/** /var/run is /run on most hosts, and the same file must not count twice. */
function realFolder(folder: string): string {
  const sameRun =
    statSync('/var/run', { throwIfNoEntry: false })?.ino === statSync('/run', { throwIfNoEntry: false })?.ino;
  return sameRun ? folder.replace(/^\/var\/run\//, '/run/') : folder;
}

function processesWith(words: string): string[] {
  const commandLine = (pid: string): string => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
    } catch {
      return '';
    }
  };
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => commandLine(pid).includes(words))
    .map((pid) => `${pid} ${commandLine(pid).slice(-80).trim()}`);
}

function setting(name: string): string {
  try {
    return readFileSync(`/proc/sys/${name}`, 'latin1').trim();
  } catch {
    return 'absent';
  }
}
