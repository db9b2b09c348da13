import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { executable } from '../../../support/executables.ts';
import { addAllocation, makeHost, sh, suiteOfFaults } from '../../../support/doctor.ts';

const NOMAD = new URL('../../../../conflist/nomad.conflist', import.meta.url).pathname;
const GONE = 'POSTROUTING -s 172.26.64.77/32 -m comment --comment \'name: "nomad" id: "gone"\' -j ACCEPT';

const test = suiteOfFaults('weft doctor: packet filter', {
  before: () => {
    makeHost();
    sh('iptables -N NOMAD-ADMIN; iptables -A NOMAD-ADMIN -o nomad -d 172.26.64.0/20 -j ACCEPT');
    addAllocation('one', NOMAD, '--port', '8080:80');
  },
  rounds: [
    [
      {
        fault: 'a rule of Docker before CNI-FORWARD drops',
        make: 'iptables -N DOCKER-USER; iptables -A DOCKER-USER -j DROP; iptables -I FORWARD -j DOCKER-USER',
        id: 'forward-drop',
        where: 'chain FORWARD of iptables',
        what: /\(Docker\).*"-A DOCKER-USER -j DROP"/,
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
        remedy: "sed -i 's/^FirewallBackend=.*/FirewallBackend=nftables/' /etc/firewalld/firewalld.conf",
        printed: /^sed -i .*; systemctl restart firewalld$/,
      },
      {
        fault: "Nomad's rule flushed out of its admin chain",
        make: 'iptables -F NOMAD-ADMIN',
        id: 'nomad-admin',
        where: 'chain NOMAD-ADMIN of iptables',
      },
      {
        fault: 'rules of an allocation that is gone',
        make: `iptables -t nat -A ${GONE}`,
        id: 'rules-orphaned',
        where: /^chain POSTROUTING of iptables-nft$/,
        what: /1 rule of nomad\/gone/,
        remedy: `iptables -t nat -D ${GONE}`,
        printed: /^weft gc$/,
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
        remedy: () => void execFileSync(executable('weft'), ['repair']),
        printed: /^weft repair$/,
      },
    ],
  ],
});

test.run();
