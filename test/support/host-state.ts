import { execFileSync } from 'node:child_process';
import * as assert from 'uvu/assert';

/** Everything that a plugin could leave on a host, one section a command, without counters and times. */
const COMMANDS: Readonly<Record<string, string>> = {
  links: 'ip -o link',
  addresses: 'ip -o addr | sed "s/valid_lft.*//"',
  routes: 'ip route; ip -6 route',
  namespaces: 'ip netns',
  iptables: 'iptables-save | grep -v "^#" | sed "s/\\[[0-9:]*\\]//"',
  ip6tables: 'ip6tables-save | grep -v "^#" | sed "s/\\[[0-9:]*\\]//"',
  nftables: 'nft -s list ruleset',
  sysctls: 'sysctl -a 2>/dev/null | grep -E "^net\\.(ipv4\\.(ip_forward|conf)|ipv6\\.conf)"',
  // Directories of the suite's own, and marks that the node agent removes, are no traces of a call; a lock file is.
  files:
    'find /run /etc/netns /var/lib/cni /var/run/cni -not -path "*/.layers*" -not -path /run/weft -not -path /run/weft/locks -not -path /run/weft/firewall ' +
    '-not -path "/run/weft/calls*" 2>/dev/null | sort',
};

export type HostState = Readonly<Record<string, string>>;

export function hostState(): HostState {
  const sections = Object.entries(COMMANDS).map(([section, command]) => [
    section,
    execFileSync('sh', ['-c', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }),
  ]);
  return Object.fromEntries(sections) as HostState;
}

/** Reading a table makes iptables-nft register it, and xtables its lock file: both are done before the first snapshot counts. */
export function settledHostState(): HostState {
  hostState();
  return hostState();
}

export function assertUntouched(before: HostState, what: string): void {
  const after = hostState();
  for (const section of Object.keys(COMMANDS)) {
    assert.is(after[section], before[section], `${what} changed ${section}`);
  }
}
