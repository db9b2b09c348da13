import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';

/** Everything that a plugin could leave on a host, one section a command, without counters and times. */
const COMMANDS = {
  links: 'ip -o link',
  addresses: 'ip -o addr | sed "s/valid_lft.*//"',
  // The kernel notices up to a second later that a bridge has lost its last port.
  routes: '{ ip route; ip -6 route; } | sed "s/ linkdown//; s/ dead//"',
  namespaces: 'ip netns',
  iptables: 'iptables-save | grep -v "^#" | sed "s/\\[[0-9:]*\\]//"',
  ip6tables: 'ip6tables-save | grep -v "^#" | sed "s/\\[[0-9:]*\\]//"',
  nftables: 'nft -s list ruleset',
  sysctls: '(cd /proc/sys/net; grep -s . ipv4/ip_forward ipv4/conf/*/* ipv6/conf/*/*)',
  // Directories of the suite's own, and marks that the node agent removes, are no traces of a call; a lock file is.
  files:
    'find /run /etc/netns /var/lib/cni /var/run/cni -not -path "*/.layers*" -not -path /run/weft -not -path /run/weft/locks ' +
    '-not -path "/run/weft/calls*" 2>/dev/null | sort',
} as const;

export type HostState = Readonly<Record<keyof typeof COMMANDS, string>>;

/** Reading a table makes iptables-nft register it, and xtables its lock file: both are done before anything counts. */
const SETTLE = 'iptables-save; ip6tables-save';
const END = '=== end of the section';
/** One shell for all: tests read the state often. */
const SCRIPT = `{ ${SETTLE}; } >/dev/null\n${Object.values(COMMANDS)
  .map((command) => `${command}\necho '${END}'`)
  .join('\n')}`;

export function hostState(): HostState {
  const text = execFileSync('sh', ['-c', SCRIPT], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
    maxBuffer: 1 << 26,
  });
  const sections = text.split(`${END}\n`);
  const names = Object.keys(COMMANDS);
  assert.is(sections.length, names.length + 1);
  return Object.fromEntries(names.map((name, at) => [name, sections[at]])) as HostState;
}

export function assertUntouched(before: HostState, what: string): void {
  const after = hostState();
  for (const section of Object.keys(COMMANDS) as (keyof HostState)[]) {
    assert.is(after[section], before[section], `${what} changed ${section}`);
  }
}
