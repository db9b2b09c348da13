import { addAllocation, bridgeList, makeHost, sh, suiteOfFaults } from '../../../support/doctor.ts';

const NOMAD = new URL('../../../../conflist/nomad.conflist', import.meta.url).pathname;
const set = (name: string, value: string) => `sysctl -qw ${name}=${value}`;

const test = suiteOfFaults('weft doctor: kernel', {
  before: () => {
    makeHost();
    sh('iptables -N NOMAD-ADMIN; iptables -A NOMAD-ADMIN -o nomad -d 172.26.64.0/20 -j ACCEPT');
    addAllocation('one', NOMAD, '--port', '8080:80');
    addAllocation('six', bridgeList('dual', 'dual0', ['10.66.0.0/24', 'fd66::/64']));
    // A second uplink; and a network whose bridge has no IPv6 address yet.
    sh(`ip link add up1 type veth peer name up1peer; ip link set up1 up; ip link set up1peer up
      ip address add 198.51.100.2/24 dev up1; ip route add default via 198.51.100.1 metric 100
      ip link add idle0 address 02:00:00:00:00:01 type bridge`);
    bridgeList('idle', 'idle0', ['fd67::/64']);
    sh('ip link set idle0 up; ip -6 route add default via fe80::1 dev up0 proto ra');
    sh(
      'sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.up0.rp_filter=0 net.ipv4.conf.up1.rp_filter=0',
    );
    sh('sysctl -qw net.ipv6.conf.up0.accept_ra=2');
  },
  rounds: [
    [
      {
        fault: 'IPv4 forwarding turned off by a hardening script',
        make: set('net.ipv4.ip_forward', '0'),
        id: 'ip-forward-off',
        where: 'net.ipv4.ip_forward',
      },
      {
        fault: 'IPv6 forwarding turned off',
        make: set('net.ipv6.conf.all.forwarding', '0'),
        id: 'ip-forward-off',
        where: 'net.ipv6.conf.all.forwarding',
      },
      {
        fault: 'frames of the bridge pass no iptables rule',
        make: set('net.bridge.bridge-nf-call-iptables', '0'),
        id: 'bridge-nf-call-off',
        where: 'net.bridge.bridge-nf-call-iptables',
      },
      {
        fault: 'IPv6 frames of the bridge pass no ip6tables rule',
        make: set('net.bridge.bridge-nf-call-ip6tables', '0'),
        id: 'bridge-nf-call-off',
        where: 'net.bridge.bridge-nf-call-ip6tables',
      },
      {
        fault: 'strict reverse path filter, two uplinks',
        make: set('net.ipv4.conf.up1.rp_filter', '1'),
        id: 'rp-filter-strict',
        where: 'net.ipv4.conf.up1.rp_filter',
      },
      {
        fault: 'loopback addresses are not forwarded to the bridge',
        make: set('net.ipv4.conf.nomad.route_localnet', '0'),
        id: 'route-localnet-off',
        where: 'net.ipv4.conf.nomad.route_localnet',
      },
      {
        fault: 'the bridge answers no ARP request',
        make: set('net.ipv4.conf.dual0.arp_ignore', '8'),
        id: 'arp-ignored',
        where: 'net.ipv4.conf.dual0.arp_ignore',
      },
      {
        fault: 'IPv6 disabled on the bridge of an IPv6 network',
        make: set('net.ipv6.conf.idle0.disable_ipv6', '1'),
        id: 'ipv6-disabled',
        where: 'net.ipv6.conf.idle0.disable_ipv6',
      },
    ],
    [
      {
        fault: 'forwarding turned off for the bridge alone',
        make: set('net.ipv4.conf.nomad.forwarding', '0'),
        id: 'bridge-forwarding-off',
        where: 'net.ipv4.conf.nomad.forwarding',
      },
      {
        fault: 'the uplink ignores router advertisements',
        make: set('net.ipv6.conf.up0.accept_ra', '1'),
        id: 'ipv6-ra-ignored',
        where: 'net.ipv6.conf.up0.accept_ra',
      },
    ],
    [
      {
        fault: '/proc/sys mounted read-only',
        make: 'mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys',
        id: 'proc-sys-read-only',
        where: '/proc/sys',
      },
    ],
  ],
});

test.run();
