import { sh } from '../e2e/support/client-host.ts';

/** What an operator and other programs have on the host. Some of it looks like ours, but names other owners. */
export function foreignObjects(variant: 'nft' | 'legacy'): void {
  for (const iptables of [`iptables-${variant}`, `ip6tables-${variant}`]) {
    sh(`
      ${iptables} -t nat -N FOREIGN; ${iptables} -t nat -A POSTROUTING -o foreign0 -j FOREIGN
      ${iptables} -t nat -A FOREIGN -m comment --comment 'name: "nomad" id: "foreign"' -j RETURN
      ${iptables} -A FORWARD -i foreign0 -j ACCEPT
      ${iptables} -t mangle -A PREROUTING -i foreign0 -j MARK --set-mark 7`);
  }
  sh(`
    nft 'add table inet foreign; add set inet foreign s { type ipv4_addr; elements = { 172.26.64.2, 172.26.64.3 }; }'
    nft 'add chain inet foreign c { type filter hook input priority 10; }; add rule inet foreign c iifname "foreign0" accept'
    ip link add foreign0 type bridge; ip addr add 10.250.0.1/24 dev foreign0; ip link set foreign0 up
    ip rule add from 10.250.0.0/24 table 77; ip route add default dev foreign0 table 77
    ip netns add foreign
    mkdir -p /run/cni/nomad /run/cni/foreign /etc/netns/foreign /var/lib/cni/networks/nomad
    printf 'foreign\\r\\neth0' > /run/cni/nomad/172.26.64.5
    printf 'foreign\\r\\neth0' > /run/cni/foreign/172.26.64.6
    printf 'foreign\\r\\neth0' > /var/lib/cni/networks/nomad/172.26.64.7
    echo 'nameserver 192.0.2.1' > /etc/netns/foreign/resolv.conf`);
}
