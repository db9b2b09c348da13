import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import { binDir } from '../../support/executables.ts';

/** The test's host as a Nomad client with a FORWARD policy of DROP, and a machine outside of it that knows no route to allocations. */
export const HOST = { ipv4: '192.0.2.2', ipv6: '2001:db8:1::2' } as const;
export const OUTSIDE = { name: 'outside', ipv4: '192.0.2.9', ipv6: '2001:db8:1::9' } as const;

export function sh(script: string): string {
  return execFileSync('sh', ['-ec', script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

export function makeClientHost(): void {
  sh(`
    ip netns add ${OUTSIDE.name}
    ip link add eth0 type veth peer name eth0 netns ${OUTSIDE.name}
    ip addr add ${HOST.ipv4}/24 dev eth0
    ip addr add ${HOST.ipv6}/64 dev eth0 nodad
    ip link set eth0 up
    ip -n ${OUTSIDE.name} addr add ${OUTSIDE.ipv4}/24 dev eth0
    ip -n ${OUTSIDE.name} addr add ${OUTSIDE.ipv6}/64 dev eth0 nodad
    ip -n ${OUTSIDE.name} link set lo up
    ip -n ${OUTSIDE.name} link set eth0 up
    ip route add default via ${OUTSIDE.ipv4}
    ip -6 route add default via ${OUTSIDE.ipv6}`);
}

/** Makes `iptables` and its relatives mean one of the two variants for this process and its children, as `update-alternatives` does for a host. */
export function useXtables(variant: 'nft' | 'legacy'): void {
  const folder = `/opt/iptables-${variant}`;
  mkdirSync(folder, { recursive: true });
  for (const family of ['iptables', 'ip6tables']) {
    for (const verb of ['', '-save', '-restore'])
      symlinkSync(`/usr/sbin/${family}-${variant}${verb}`, `${folder}/${family}${verb}`);
  }
  process.env['PATH'] = `${folder}:${process.env['PATH'] ?? ''}`;
}

/** A folder that holds the six executables that Nomad names, and nothing else. */
export function onlyThePlugins(): string {
  const folder = '/opt/only-the-plugins';
  mkdirSync(folder);
  for (const name of ['loopback', 'bridge', 'host-local', 'firewall', 'portmap', 'consul-cni']) {
    symlinkSync(`${binDir}/${name}`, `${folder}/${name}`);
  }
  return folder;
}

/** What Nomad's client does with iptables before each allocation, spelled as Nomad spells it. */
export function asNomadBefore(bridge: string, subnets: readonly string[]): void {
  for (const subnet of subnets) {
    const iptables = subnet.includes(':') ? 'ip6tables' : 'iptables';
    sh(`
      ${iptables} -t filter -S --wait 5 | grep -qx -- '-N NOMAD-ADMIN' || ${iptables} -t filter -N NOMAD-ADMIN --wait 5
      ${iptables} -t filter -C NOMAD-ADMIN -o ${bridge} -d ${subnet} -j ACCEPT --wait 5 2>/dev/null ||
        ${iptables} -t filter -A NOMAD-ADMIN -o ${bridge} -d ${subnet} -j ACCEPT --wait 5`);
  }
}

/** Everything that could be left of an allocation, read independently of what is being tested; counters and line order taken out. */
export function traces(): string {
  return sh(`
    ip -br link show | awk '{print "link", $1}' | sort
    ip netns list | awk '{print "netns", $1}' | sort
    for table in filter nat mangle raw; do
      iptables-save -t $table; ip6tables-save -t $table
    done | grep -v -e '^#' -e '^:[A-Z]* ACCEPT' -e '^[*]' -e '^COMMIT' | sed 's/ \\[[0-9:]*\\]$//' | sort
    nft -s list ruleset 2>/dev/null | awk '/^table/ {show = !($2 ~ /^ip6?$/ && $3 ~ /^(filter|nat|mangle|raw)$/)} show' | grep '[a-z]' || true
    find /run/cni /run/weft* /var/lib/cni /var/lib/weft /etc/netns -mindepth 1 2>/dev/null | grep -vE '^/run/weft/(locks$|calls)' | sort || true`);
}
