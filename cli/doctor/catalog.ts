/**
 * Every finding of `weft doctor`: where it belongs, how bad it is, and why it matters. docs/operate/doctor.md has the same table; a test
 * compares them.
 */

/** In the order of the output. */
export const GROUPS = ['kernel', 'packet filter', 'plugins', 'network', 'mesh', 'capacity'] as const;
export type Group = (typeof GROUPS)[number];

/** `error`: an allocation does not start, or its traffic is lost. `warning`: it will be, or only in some cases. */
export type Level = 'error' | 'warning';

interface Kind {
  readonly level: Level;
  readonly about: string;
  readonly why: string;
}

const error = (about: string, why: string): Kind => ({ level: 'error', about, why });
const warning = (about: string, why: string): Kind => ({ level: 'warning', about, why });

const BY_GROUP = {
  kernel: {
    'kernel-feature': error(
      'the kernel lacks a feature',
      'ADD fails, or rules that need it cannot be written',
    ),
    'proc-sys-read-only': error('/proc/sys is read-only', 'the plugins cannot turn on forwarding'),
    'ip-forward-off': error(
      'IP forwarding is off while allocations run',
      'the kernel drops every packet between an allocation and another host, and every published port is dead',
    ),
    'bridge-forwarding-off': error(
      'forwarding is off for one interface',
      'packets that arrive on this interface are not forwarded, whatever net.ipv4.ip_forward says',
    ),
    'bridge-nf-call-off': warning(
      'frames within the bridge pass no iptables rule',
      'Nomad asks for 1: otherwise ingress policies do not apply between allocations of this host',
    ),
    'rp-filter-strict': warning(
      'strict reverse path filter on a host with several uplinks',
      'requests to published ports that arrive on another uplink than the replies leave by are dropped',
    ),
    'route-localnet-off': warning(
      'loopback addresses are not forwarded to the bridge',
      'published ports do not answer at 127.0.0.1 of this host',
    ),
    'conntrack-full': error(
      'the connection table is nearly full',
      'the kernel drops new connections when it is full',
    ),
    'ipv6-disabled': error(
      'IPv6 is disabled, and a network has IPv6 addresses',
      'ADD fails for this network',
    ),
    'ipv6-ra-ignored': warning(
      'IPv6 forwarding makes the uplink ignore router advertisements',
      'the host loses its IPv6 default route when the present one expires',
    ),
    'arp-ignored': error('the bridge does not answer ARP', 'allocations cannot reach their gateway'),
    'modules-disabled': warning(
      'modules can no longer be loaded',
      'a feature whose module is not loaded yet stays missing until the next boot',
    ),
    'namespace-limit': error(
      'no more network namespaces can be created',
      'Nomad cannot start another allocation in bridge mode',
    ),
  },
  'packet filter': {
    'iptables-missing': error(
      'iptables is not installed',
      'Nomad itself runs iptables for every allocation in bridge mode, also where the plugins use nftables',
    ),
    'iptables-unusable': error(
      'iptables cannot list its own table',
      'Nomad lists it for every allocation in bridge mode, and fails; rules of nftables in the table are the usual cause',
    ),
    'native-rules': warning(
      'a rule of nftables in a table of iptables',
      'iptables shows it without its condition: saved and restored, it drops or accepts everything',
    ),
    'iptables-two-variants': warning(
      'both variants of iptables have rules',
      'a packet must pass both; the host\'s own "iptables" shows only one of them',
    ),
    'forward-drop': error(
      'a rule or policy drops forwarded packets of an allocation',
      'a packet that one chain drops is lost, whatever other tables and chains accept',
    ),
    'firewalld-reload': warning(
      'firewalld manages iptables',
      'each reload of firewalld deletes the rules of running allocations',
    ),
    'ufw-reload': warning(
      'ufw manages the built-in chains',
      'each reload of ufw deletes the rules of running allocations',
    ),
    'nomad-admin': warning(
      "Nomad's rule in its admin chain is missing",
      'new connections to published ports are dropped where the policy of FORWARD is DROP',
    ),
    'port-elsewhere': error(
      'a rule before those of portmap takes a published port',
      'the allocation gets no connection at this port, although Nomad shows it as its own',
    ),
    'policy-not-enforced': warning(
      'the policy of weft.json is not in force',
      'an ADD enforces it: until then, allocations reach what the file denies, or not what it allows',
    ),
    'rules-missing': error(
      'rules of a running allocation are missing',
      'another program removed them: traffic is dropped or not masqueraded, published ports are dead',
    ),
    'rules-duplicated': warning(
      'a rule is there more than once',
      'DEL removes every copy, but each packet passes all of them; another program restores saved rules',
    ),
    'rules-orphaned': warning(
      'rules of an allocation that is gone',
      'they send its published ports nowhere, and apply to the next allocation with its address',
    ),
  },
  plugins: {
    'plugin-path': error(
      "no directory of Nomad's cni_path can be read",
      'Nomad finds no plugin, and places no job in bridge mode on this node',
    ),
    'plugin-missing': error(
      "a plugin of Nomad's list is missing",
      'Nomad places no job in bridge mode on this node',
    ),
    'plugin-not-executable': error(
      'a plugin is not executable',
      'Nomad does not count it as installed, and places no job that needs it on this node',
    ),
    'plugin-writable': warning(
      'a plugin or its directory can be changed by other users',
      'Nomad runs it as root',
    ),
    'plugin-version': error(
      'a plugin prints no version',
      'Nomad counts it as missing, and places no job that needs it on this node',
    ),
    'plugin-slow': warning(
      'a plugin does not print its version in time',
      'Nomad stops waiting after 3 s and counts it as missing',
    ),
    'plugin-too-old': error(
      'a plugin is older than Nomad requires',
      'Nomad places no job that needs it on this node, or skips CHECK',
    ),
    'plugins-mixed': warning(
      'plugins of different suites or releases',
      'each plugin works with what the one before it left; only one suite in one release is tested together',
    ),
    'plugin-shadowed': warning(
      'a plugin is in two directories of cni_path',
      "Nomad runs the first, but reports the last one's version",
    ),
    'conflist-invalid': error(
      'an invalid network list',
      'allocations on this network fail; a file that is no JSON hides every other network of the directory',
    ),
    'conflist-plugin': error(
      'a network list names a plugin that is not installed',
      'allocations on this network fail, and each attempt leaks an address',
    ),
    'conflist-duplicate': warning(
      'two network lists have the same name',
      'Nomad uses one of them and ignores the other',
    ),
    'conflist-ports': warning(
      'a network list has portmap without the capability portMappings',
      'the ports of a job are not published',
    ),
    'weft-json': error('invalid /etc/weft/weft.json', 'every ADD fails'),
    'agent-not-running': warning(
      'launchers are installed, and no agent answers',
      'each call executes the plugin itself, which takes several times as long',
    ),
    'agent-release': warning(
      'agent and launchers are of different releases',
      'launchers ignore the agent: each call executes the plugin itself',
    ),
  },
  network: {
    'not-a-bridge': error("an interface with the bridge's name is no bridge", 'ADD fails for this network'),
    'bridge-down': error('the bridge is down', 'no allocation of this network reaches anything'),
    'bridge-address-missing': error(
      'the bridge has lost its gateway address',
      'allocations have no gateway, and the host no route to them',
    ),
    'bridge-address-unexpected': warning(
      'the bridge has an address that no network list gives it',
      'another program configures the bridge; it may remove the gateway address as well',
    ),
    'bridge-managed': warning(
      'a network manager configures the bridge',
      'it removes addresses and sets another MAC when it reloads, and allocations lose their gateway',
    ),
    'bridge-mac': warning(
      "the bridge's MAC is not fixed",
      'it changes when allocations come and go; others reach the gateway only after their ARP entry expires',
    ),
    'bridge-stp': warning(
      'the bridge runs the spanning tree protocol',
      'a new allocation has no network for 30 s',
    ),
    'mtu-above-uplink': warning(
      "the bridge's MTU is above the uplink's",
      'large packets are fragmented or lost on the way: connections start and then hang',
    ),
    'subnet-address': error(
      "an address of the host's other interfaces is in the allocation subnet",
      'allocations and this network cannot reach each other, or ADD refuses the network',
    ),
    'subnet-route': warning(
      'the allocation subnet overlaps a route of the host',
      'addresses of both cannot be reached from this host',
    ),
    'container-interface': error(
      'an allocation runs in a namespace without its interface or address',
      'it has no network, although Nomad shows it as running',
    ),
    'address-duplicate': error(
      'two allocations have the same address',
      'their traffic reaches one or the other by chance',
    ),
    'veth-orphan': warning(
      'a port of the bridge belongs to no allocation',
      'it may answer for the address of a new allocation, and counts towards the 1,023 ports of a bridge',
    ),
  },
  mesh: {
    'consul-dns-loopback': warning(
      "Consul's DNS listens on the loopback interface only",
      'Nomad hands out no DNS address: names of the mesh do not resolve in allocations with transparent proxy',
    ),
    'consul-dns-off': warning(
      "Consul's DNS is disabled",
      'Nomad hands out no DNS address: names of the mesh do not resolve in allocations with transparent proxy',
    ),
    'consul-dns-unreachable': error(
      'Consul DNS does not answer a query from the bridge',
      'allocations with transparent proxy resolve no name at all',
    ),
    'consul-dns-silent': error(
      'Consul DNS does not answer this host',
      'allocations with transparent proxy resolve no name at all',
    ),
    'consul-dns-domain': error(
      'the DNS server does not answer for consul.',
      'names of the mesh do not resolve; another server has the address, or Consul has another domain',
    ),
    'consul-dns-recursion': warning(
      'Consul DNS does not resolve public names',
      'it is the only name server of allocations with transparent proxy',
    ),
    'consul-cni-too-old': error(
      'consul-cni is older than Nomad requires',
      'Nomad places no job with transparent proxy on this node',
    ),
    'envoy-uid': warning(
      "a process runs as the proxy's user",
      'the rules take it for the proxy: its connections bypass the mesh',
    ),
  },
  capacity: {
    'range-full': error('no address is left', 'ADD fails for this network'),
    'range-nearly-full': warning('few addresses are left', 'ADD fails when the range is exhausted'),
    'leases-stale': warning(
      'addresses leased to allocations that are gone',
      'DEL was not called, or failed; the range fills up',
    ),
    'results-stale': warning(
      'cached results of allocations that are gone',
      'DEL was not called, or failed; Nomad never removes them',
    ),
    'results-unreadable': warning(
      'a cached result is damaged',
      'CHECK fails for this allocation when Nomad restarts, and Nomad destroys its network',
    ),
    'disk-full': error('no space or inodes left for leases', 'ADD fails: it cannot write the lease'),
  },
} as const satisfies Readonly<Record<Group, Readonly<Record<string, Kind>>>>;

export type FindingId = { [Name in Group]: keyof (typeof BY_GROUP)[Name] }[Group];

export const CATALOG = Object.fromEntries(
  GROUPS.flatMap((group) =>
    Object.entries<Kind>(BY_GROUP[group]).map(([id, kind]) => [id, { ...kind, group }]),
  ),
) as Readonly<Record<FindingId, Kind & { readonly group: Group }>>;
