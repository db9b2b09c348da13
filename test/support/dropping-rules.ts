import { run, sh } from './variants.ts';

/** Rules of other programs that drop forwarded packets, in both families of the host's iptables. */
const FAMILIES = ['iptables', 'ip6tables'] as const;

export function forwardPolicy(target: 'ACCEPT' | 'DROP', families: readonly string[] = FAMILIES): void {
  for (const family of families) run(family, '-P', 'FORWARD', target);
}

/** What Docker sets up for its default bridge. */
export function dockerRules(): void {
  forwardPolicy('DROP');
  for (const family of FAMILIES) {
    for (const chain of ['DOCKER', 'DOCKER-FORWARD', 'DOCKER-USER', 'DOCKER-CT']) sh(`${family} -N ${chain}`);
    for (const rule of [
      'FORWARD -j DOCKER-USER',
      'FORWARD -j DOCKER-FORWARD',
      'DOCKER-FORWARD -j DOCKER-CT',
      'DOCKER-FORWARD -j DOCKER',
      'DOCKER-FORWARD -i docker0 -j ACCEPT',
      'DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      'DOCKER ! -i docker0 -o docker0 -j DROP',
    ])
      sh(`${family} -A ${rule}`);
  }
}

/** What `ufw enable` sets up with its default, "deny (routed)". */
export function ufwRules(): void {
  forwardPolicy('DROP');
  for (const [family, icmp] of [
    ['iptables', 'icmp -m icmp --icmp-type 3'],
    ['ip6tables', 'ipv6-icmp -m icmp6 --icmpv6-type 1'],
  ] as const) {
    const chains = ['before-logging', 'before', 'after', 'after-logging', 'reject', 'track', 'user'];
    for (const chain of chains) sh(`${family} -N ufw-${chain}-forward`);
    for (const chain of chains.slice(0, -1)) sh(`${family} -A FORWARD -j ufw-${chain}-forward`);
    for (const rule of [
      'before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      `before-forward -p ${icmp} -j ACCEPT`,
      'before-forward -j ufw-user-forward',
      'after-logging-forward -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix UFW',
    ])
      sh(`${family} -A ufw-${rule}`);
  }
}

/** A table of the operator's own with a base chain at the forward hook. */
export function inetTable(policy: 'accept' | 'drop', ...rules: readonly string[]): void {
  run('nft', 'add table inet mine');
  run('nft', `add chain inet mine passing { type filter hook forward priority 5; policy ${policy}; }`);
  for (const rule of rules) run('nft', `add rule inet mine passing ${rule}`);
}

/** The commands that a warning names. */
export function commandsIn(log: string): string[] {
  return [...log.matchAll(/accept with: (.*)$/gm)].flatMap(([, list = '']) => list.split('; '));
}

/** The lines of a log, without the plugin's name before each. */
export function linesOf(log: string): string[] {
  return log
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => line.replace(/^[a-z]+: /, ''));
}
