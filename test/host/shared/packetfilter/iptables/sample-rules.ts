/** A rule of every shape that the suite writes, in iptables' words. */
export const FILTER_RULES = [
  '-d 10.0.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
  '-s 10.0.0.2/32 -j ACCEPT',
  '-i br0 ! -o br0 -m comment --comment "CNI firewall plugin rules (ingressPolicy: same-bridge)" -j DROP',
  '-i br0 -o br0 -m comment --comment x -j RETURN',
  '-p tcp -j REJECT --reject-with tcp-reset',
  '-p udp -j REJECT --reject-with icmp-port-unreachable',
];

export const NAT_RULES = [
  '-d 10.88.0.0/16 -m comment --comment "name: \\"net1\\" id: \\"cont1\\"" -j ACCEPT',
  '! -d 224.0.0.0/4 -m comment --comment "name: \\"net1\\" id: \\"cont1\\"" -j MASQUERADE',
  '-m addrtype --dst-type LOCAL -j ACCEPT',
  '-m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000',
  '-m mark --mark 0x2000/0x2000 -j MASQUERADE',
  '-s 10.88.0.0/16 -d 192.0.2.1/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.0.2:80',
  '-s 127.0.0.1/32 -p udp -m udp --dport 8080 -j ACCEPT',
  '-p sctp -m sctp --dport 8080 -j DNAT --to-destination 10.88.0.2:80',
  '-p tcp -m tcp --dport 8000:8099 -j DNAT --to-destination 10.88.0.2:9000-9099/8000',
  '! -s 192.0.2.0/24 -p tcp -m comment --comment "dnat name: \\"net1\\" id: \\"cont1\\"" -m multiport --dports 8080,8081 -j ACCEPT',
  '-p tcp -j REDIRECT --to-ports 15001',
  '-m owner --uid-owner 101 -j RETURN',
  '-d 10.0.0.0/24 -j RETURN',
  '-m mark ! --mark 0x1 -j RETURN',
];
