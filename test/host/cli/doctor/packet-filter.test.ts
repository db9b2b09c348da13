import { writeFileSync } from 'node:fs';
import { masqueradeChain, portmapChain } from '../../../../shared/packetfilter/names.ts';
import { addAllocation, makeHost, sh, suiteOfFaults } from '../../../support/doctor.ts';

const NOMAD = new URL('../../../../conflist/nomad.conflist', import.meta.url).pathname;
const GONE = { network: 'nomad', containerId: 'gone' };
const [SNAT, DNAT] = [masqueradeChain(GONE), portmapChain(GONE)];

/** What programs next to Weft have on a host where all is well; the policy of FORWARD is Docker's and ufw's. */
const NEIGHBOURS = `*filter
:FORWARD DROP [0:0]
:DOCKER - [0:0]
:DOCKER-USER - [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-ISOLATION-STAGE-2 - [0:0]
:LIBVIRT_FWX - [0:0]
:LIBVIRT_FWI - [0:0]
:LIBVIRT_FWO - [0:0]
:KUBE-FORWARD - [0:0]
:ufw-before-forward - [0:0]
:ufw-user-forward - [0:0]
:ufw-reject-forward - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -j LIBVIRT_FWX
-A FORWARD -j LIBVIRT_FWI
-A FORWARD -j LIBVIRT_FWO
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A DOCKER-USER -j RETURN
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A LIBVIRT_FWX -i virbr0 -o virbr0 -j ACCEPT
-A LIBVIRT_FWI -d 192.168.122.0/24 -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A LIBVIRT_FWI -o virbr0 -j REJECT --reject-with icmp-port-unreachable
-A LIBVIRT_FWO -s 192.168.122.0/24 -i virbr0 -j ACCEPT
-A LIBVIRT_FWO -i virbr0 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward
COMMIT
*nat
:DOCKER - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-EXT-WEB - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
`;

function restore(rules: string): void {
  writeFileSync('/opt/rules', rules);
  sh('iptables-restore --noflush /opt/rules');
}

const test = suiteOfFaults('weft doctor: packet filter', {
  before: () => {
    makeHost();
    restore(NEIGHBOURS);
    sh('iptables -N NOMAD-ADMIN; iptables -A NOMAD-ADMIN -o nomad -d 172.26.64.0/20 -j ACCEPT');
    addAllocation('one', NOMAD, '--port', '8080:80');
  },
  rounds: [
    [
      {
        fault: 'a rule of Docker before CNI-FORWARD drops',
        make: 'iptables -I DOCKER-USER -j DROP; iptables -I FORWARD -j DOCKER-USER',
        id: 'forward-drop',
        where: 'chain FORWARD of iptables',
        what: /\(Docker\).*"-A DOCKER-USER -j DROP"/,
        // Rules that Docker does not remove when it starts.
        printed: /^(iptables -I DOCKER-USER [^;]*(; |$))+$/,
      },
      {
        fault: 'a container of Docker publishes the same port',
        make: 'iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80',
        id: 'port-elsewhere',
        where: 'chain DOCKER of iptables',
        what: /^host port 8080\/tcp of one goes elsewhere \(Docker\): "-A DOCKER ! -i docker0 -p tcp /,
        remedy: 'iptables -t nat -D DOCKER 2',
        printed: /another port, or: iptables -t nat -D DOCKER ! -i docker0 .* 172.17.0.2:80$/,
      },
      {
        fault: 'a node port of kube-proxy is the same port',
        make: 'iptables -t nat -A KUBE-NODEPORTS -p udp -m comment --comment "default/web" -m udp --dport 8080 -j KUBE-EXT-WEB',
        id: 'port-elsewhere',
        where: 'chain KUBE-NODEPORTS of iptables',
        what: /8080\/udp of one goes elsewhere \(kube-proxy\)/,
        remedy: 'iptables -t nat -F KUBE-NODEPORTS',
      },
      {
        fault: 'a table of nftables with policy drop',
        make: 'nft add table inet guard; nft "add chain inet guard forward { type filter hook forward priority 10; policy drop; }"',
        id: 'forward-drop',
        where: 'chain forward of table inet guard',
        what: /policy drop/,
      },
      {
        fault: 'a rule of nftables in a chain of iptables',
        make: 'nft "add set ip filter blocked { type ipv4_addr; }"; nft insert rule ip filter FORWARD ip saddr @blocked drop',
        id: 'native-rules',
        where: 'chain ip filter FORWARD',
      },
      {
        fault: 'rules that the other variant of iptables left',
        make: 'iptables-legacy -A INPUT -p tcp --dport 99 -j ACCEPT',
        id: 'iptables-two-variants',
        where: 'table filter of iptables-legacy',
        remedy: 'iptables-legacy -t filter -F',
        printed: /then: iptables-legacy -t filter -F$/,
      },
      {
        fault: 'firewalld with the iptables back end',
        make: () => {
          sh('mkdir -p /etc/firewalld');
          writeFileSync('/etc/firewalld/firewalld.conf', 'FirewallBackend=iptables\n');
          writeFileSync('/run/firewalld.pid', '1\n');
        },
        id: 'firewalld-reload',
        where: '/etc/firewalld/firewalld.conf',
        // Without systemctl.
        remedy: "sed -i 's/^FirewallBackend=.*/FirewallBackend=nftables/' /etc/firewalld/firewalld.conf",
        printed: /^sed -i .*; systemctl restart firewalld$/,
      },
      {
        fault: 'ufw manages the built-in chains',
        make: () => {
          sh('mkdir -p /etc/ufw /etc/default; echo ENABLED=yes >/etc/ufw/ufw.conf');
          writeFileSync('/etc/default/ufw', 'IPV6=yes\nMANAGE_BUILTINS=yes\n');
        },
        id: 'ufw-reload',
        where: '/etc/default/ufw',
      },
      {
        fault: 'a policy that no ADD has enforced yet',
        make: () => {
          sh('mkdir -p /etc/weft');
          writeFileSync('/etc/weft/weft.json', '{ "egress": { "deny": ["169.254.169.254"] } }');
        },
        id: 'policy-not-enforced',
        where: 'table inet weft_policy',
        what: /not in force: table inet weft_policy is missing/,
        remedy: 'rm /etc/weft/weft.json',
        printed: /^restart one allocation: nomad alloc restart one/,
      },
      {
        fault: "Nomad's rule flushed out of its admin chain",
        make: 'iptables -F NOMAD-ADMIN',
        id: 'nomad-admin',
        where: 'chain NOMAD-ADMIN of iptables',
      },
      {
        fault: 'rules of an allocation that is gone',
        make: () =>
          restore(`*nat
:${SNAT} - [0:0]
:${DNAT} - [0:0]
-A POSTROUTING -s 172.26.64.77/32 -m comment --comment "name: \\"nomad\\" id: \\"gone\\"" -j ${SNAT}
-A ${SNAT} -j MASQUERADE
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"nomad\\" id: \\"gone\\"" -m multiport --dports 9090 -j ${DNAT}
-A ${DNAT} -p tcp -m tcp --dport 9090 -j DNAT --to-destination 172.26.64.77:80
COMMIT
`),
        id: 'rules-orphaned',
        where: /^chain CNI-\w+ of table nat .*, chain CNI-DN-\w+ of table nat/,
        what: /2 rules of nomad\/gone/,
        printed: /^weft gc$/,
      },
      {
        fault: 'rules of the firewall plugin for an address that no allocation has',
        make: 'iptables -A CNI-FORWARD -d 172.26.64.78/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A CNI-FORWARD -s 172.26.64.78/32 -j ACCEPT',
        id: 'rules-orphaned',
        where: 'chain CNI-FORWARD of iptables',
        what: /^2 rules for 172\.26\.64\.78, which no allocation has$/,
      },
      {
        fault: 'a saved ruleset was restored on top',
        make: 'iptables -A CNI-FORWARD -s 172.26.64.2/32 -j ACCEPT',
        id: 'rules-duplicated',
        where: 'chain CNI-FORWARD of iptables',
      },
    ],
    [
      {
        fault: 'a rule that iptables cannot list',
        make: 'nft add rule ip filter NOMAD-ADMIN meta mark set numgen random mod 2',
        id: 'iptables-unusable',
        where: 'table ip filter',
        what: /incompatible/,
        remedy:
          'nft flush chain ip filter NOMAD-ADMIN; iptables -A NOMAD-ADMIN -o nomad -d 172.26.64.0/20 -j ACCEPT',
        printed: /nft -a list table ip filter/,
      },
      {
        fault: 'policy DROP, and nothing accepts',
        make: 'iptables -P FORWARD DROP; iptables -F FORWARD',
        id: 'forward-drop',
        where: 'chain FORWARD of iptables',
        what: /policy drop/,
      },
      {
        fault: 'the rules of the allocation were flushed',
        make: 'iptables -t nat -F POSTROUTING',
        id: 'rules-missing',
        where: 'rules of running allocations',
        what: /POSTROUTING|FORWARD/,
        printed: /^weft repair$/,
      },
    ],
  ],
});

test.run();
