import { writeFileSync } from 'node:fs';
import {
  addAllocation,
  bridgeList,
  deleteAllocation,
  makeHost,
  sh,
  suiteOfFaults,
} from '../../../support/doctor.ts';

const NOMAD = new URL('../../../../conflist/nomad.conflist', import.meta.url).pathname;
const RESULTS = '/var/lib/cni/results';
const leases = (folder: string, prefix: string, count: number) =>
  `for n in $(seq 2 ${count + 1}); do printf 'one\\r\\neth0' > ${folder}/${prefix}$n; done`;

let copy = '';

const test = suiteOfFaults('weft doctor: network and capacity', {
  before: () => {
    makeHost();
    sh('iptables -N NOMAD-ADMIN; iptables -A NOMAD-ADMIN -o nomad -d 172.26.64.0/20 -j ACCEPT');
    addAllocation('one', NOMAD);
    addAllocation('two', bridgeList('blue', 'blue0', ['10.71.0.0/24']));
    copy = bridgeList('blue-copy', 'blue0', ['10.71.0.0/24']);
    sh('ip link add green0 address 02:00:00:00:00:02 type bridge; ip link set green0 up');
    bridgeList('green', 'green0', ['10.72.0.0/24']);
    bridgeList('wrong', 'wrong0', ['10.73.0.0/24']);
    bridgeList('small', 'small0', ['10.74.0.0/29']);
    bridgeList('tight', 'tight0', ['10.75.0.0/27']);
    bridgeList('disk', 'disk0', ['10.76.0.0/24'], { dataDir: '/var/leases' });
    bridgeList('inodes', 'inodes0', ['10.77.0.0/24'], { dataDir: '/var/inodes' });
    sh('mkdir -p /run/systemd/netif/links /run/NetworkManager/devices /var/leases/disk /var/inodes/inodes');
    sh('mkdir -p /run/cni/small /run/cni/tight /run/cni/blue');
  },
  rounds: [
    [
      {
        fault: "an interface with the bridge's name",
        make: 'ip link add wrong0 type veth peer name wrong1',
        id: 'not-a-bridge',
        where: 'interface wrong0',
        remedy: 'ip link del wrong0',
        printed: /ip link del wrong0/,
      },
      {
        fault: 'the bridge is down',
        make: 'ip link set green0 down',
        id: 'bridge-down',
        where: 'interface green0',
      },
      {
        fault: 'the bridge has lost its address',
        make: 'ip address del 172.26.64.1/20 dev nomad',
        id: 'bridge-address-missing',
        where: 'interface nomad',
      },
      {
        fault: 'a foreign address on the bridge',
        make: 'ip address add 203.0.113.1/24 dev blue0',
        id: 'bridge-address-unexpected',
        where: 'interface blue0',
      },
      {
        fault: 'systemd-networkd manages the bridge',
        make: () => writeFileSync(`/run/systemd/netif/links/${indexOf('nomad')}`, 'ADMIN_STATE=configured\n'),
        id: 'bridge-managed',
        where: 'interface nomad',
        remedy: () =>
          writeFileSync(`/run/systemd/netif/links/${indexOf('nomad')}`, 'ADMIN_STATE=unmanaged\n'),
        printed: /Unmanaged=yes.*; networkctl reload$/,
      },
      {
        fault: 'NetworkManager manages the bridge',
        make: () =>
          writeFileSync(`/run/NetworkManager/devices/${indexOf('blue0')}`, '[device]\nmanaged=true\n'),
        id: 'bridge-managed',
        where: 'interface blue0',
        remedy: () =>
          writeFileSync(`/run/NetworkManager/devices/${indexOf('blue0')}`, '[device]\nmanaged=false\n'),
        printed: /unmanaged-devices=interface-name:blue0/,
      },
      {
        fault: 'spanning tree is on',
        make: 'ip link set blue0 type bridge stp_state 1',
        id: 'bridge-stp',
        where: 'interface blue0',
      },
      {
        fault: 'an MTU that the uplink does not carry',
        make: 'ip link set nomad mtu 9000',
        id: 'mtu-above-uplink',
        where: 'interface nomad',
        remedy: 'ip link set nomad mtu 1500',
        printed: /^ip link set nomad mtu 1500;/,
      },
      {
        fault: 'an address of the host in the subnet',
        make: 'ip address add 10.72.0.9/32 dev up0',
        id: 'subnet-address',
        where: 'network green',
        remedy: 'ip address del 10.72.0.9/32 dev up0',
      },
      {
        fault: 'a route of a VPN into the subnet',
        make: 'ip route add 172.26.66.0/24 via 192.0.2.1',
        id: 'subnet-route',
        where: 'network nomad',
        remedy: 'ip route del 172.26.66.0/24',
        printed: /bridge_network_subnet/,
      },
      {
        fault: 'a port of the bridge that no allocation has',
        make: 'ip link add orphan0 type veth peer name orphan1; ip link set orphan0 master blue0',
        id: 'veth-orphan',
        where: 'interface orphan0',
      },
      {
        fault: 'all addresses leased',
        make: leases('/run/cni/small', '10.74.0.', 5),
        id: 'range-full',
        where: 'network small, /var/run/cni/small',
        remedy: 'rm -r /run/cni/small',
        printed: /^weft gc;/,
      },
      {
        fault: 'few addresses left',
        make: leases('/run/cni/tight', '10.75.0.', 28),
        id: 'range-nearly-full',
        where: 'network tight, /var/run/cni/tight',
        remedy: 'rm -r /run/cni/tight',
      },
      {
        fault: 'a lease whose container is gone',
        make: "printf 'dead\\r\\neth0' > /run/cni/blue/10.71.0.99; touch -d '1 hour ago' /run/cni/blue/10.71.0.99",
        id: 'leases-stale',
        where: 'network blue: /var/run/cni/blue/10.71.0.99',
        printed: /^weft gc$/,
      },
      {
        fault: 'a cached result whose container is gone',
        make: `sed 's/"two"/"late"/; s,netns/two,netns/late,; s,10.71.0.[0-9]*/24,10.71.0.98/24,' ${RESULTS}/blue-two-eth0 > ${RESULTS}/blue-late-eth0`,
        id: 'results-stale',
        where: `network blue: ${RESULTS}/blue-late-eth0`,
        remedy: `rm ${RESULTS}/blue-late-eth0`,
        printed: /^weft gc$/,
      },
      {
        fault: 'a damaged cached result',
        make: `head -c 40 ${RESULTS}/blue-two-eth0 > ${RESULTS}/blue-torn-eth0`,
        id: 'results-unreadable',
        where: `${RESULTS}/blue-torn-eth0`,
        remedy: `rm ${RESULTS}/blue-torn-eth0`,
      },
      {
        fault: 'no space for leases',
        make: 'mount -t tmpfs -o size=256k tmpfs /var/leases/disk',
        id: 'disk-full',
        where: '/var/leases/disk',
        what: /KiB are free/,
        remedy: 'umount /var/leases/disk',
      },
      {
        fault: 'no inodes for leases',
        make: 'mount -t tmpfs -o nr_inodes=10 tmpfs /var/inodes/inodes',
        id: 'disk-full',
        where: '/var/inodes/inodes',
        what: /inodes are free/,
        remedy: 'umount /var/inodes/inodes',
      },
    ],
    [
      {
        fault: "the bridge's MAC follows its ports",
        make: 'ip link del green0; ip link add green0 type bridge; ip link set green0 up',
        id: 'bridge-mac',
        where: 'interface green0',
      },
      {
        fault: 'an allocation lost its address',
        make: 'ip -n one address flush dev eth0 scope global',
        id: 'container-interface',
        where: 'allocation one',
        remedy: 'ip -n one address add 172.26.64.2/20 dev eth0',
        printed: /^nomad alloc restart one$/,
      },
      {
        fault: 'two networks with one subnet gave out the same address',
        make: () => addAllocation('copy', copy),
        id: 'address-duplicate',
        where: 'bridge blue0',
        remedy: () => deleteAllocation('copy', copy),
        printed: /nomad alloc stop/,
      },
    ],
  ],
});

test.run();

function indexOf(link: string): string {
  return sh(`cat /sys/class/net/${link}/ifindex`).trim();
}
