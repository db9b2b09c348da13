import type { PLUGINS } from '../../plugins/index.ts';

/** A value that ADD rejects, in place of the valid one of the plugin's example. */
export interface Mistake {
  /** Path of the key, as errors name it. */
  readonly key: string;
  readonly value: unknown;
  /** Keys that contradict it. */
  readonly with?: Readonly<Record<string, unknown>>;
  /** What the error says, where it does not name the key by its path. */
  readonly says?: string;
}

const TEXT = [5, ['x'], {}];
const FLAG = ['yes', 1, {}];
const LIST = ['x', 5, {}];

const mistakes = (key: string, values: readonly unknown[], says?: string): Mistake[] =>
  values.map((value) => ({ key, value, ...(says === undefined ? {} : { says }) }));

/** A range set of one range. */
const set = (range: object): object[][] => [[range]];

const IPAM: readonly Mistake[] = [
  ...mistakes('ipam.ranges', LIST),
  ...mistakes('ipam.ranges', [[{}], [[5]]], 'ipam.ranges[0]'),
  ...mistakes('ipam.ranges', [[[]]], 'empty range set'),
  ...mistakes('ipam.ranges', [[]], 'no IP ranges specified'),
  ...mistakes('ipam.subnet', TEXT),
  ...mistakes('ipam.subnet', ['10.0.0.0/33', '10.0.0.0', 'x'], 'invalid CIDR address'),
  ...mistakes('ipam.subnet', ['10.0.0.1/24'], 'host bits'),
  ...mistakes('ipam.subnet', ['10.0.0.0/31'], 'too small'),
  ...mistakes('ipam.ranges', [set({ subnet: '10.0.0.0/24', rangeStart: '10.0.1.1' })], 'range set 0'),
  ...mistakes('ipam.ranges', [set({ subnet: '10.0.0.0/24', rangeStart: 'x' })], 'rangeStart'),
  ...mistakes('ipam.ranges', [set({ subnet: '10.0.0.0/24', rangeEnd: 'x' })], 'rangeEnd'),
  ...mistakes('ipam.ranges', [set({ subnet: '10.0.0.0/24', gateway: 'x' })], 'gateway'),
  ...mistakes(
    'ipam.ranges',
    [set({ subnet: '10.0.0.0/24', rangeStart: '10.0.0.9', rangeEnd: '10.0.0.5' })],
    'range set 0',
  ),
  ...mistakes(
    'ipam.ranges',
    [[[{ subnet: '10.0.0.0/24' }, { subnet: 'fd00::/64' }]]],
    'mixed address families',
  ),
  ...mistakes('ipam.ranges', [[[{ subnet: '10.0.0.0/24' }], [{ subnet: '10.0.0.0/25' }]]], 'overlap'),
  ...['rangeStart', 'rangeEnd', 'gateway'].flatMap((key) => mistakes(`ipam.${key}`, TEXT)),
  ...mistakes('ipam.routes', LIST),
  ...mistakes('ipam.routes', [[{}]], 'ipam.routes[0].dst'),
  ...mistakes('ipam.routes', [[{ dst: 'x' }]], 'dst of a route'),
  ...mistakes('ipam.routes', [[{ dst: '0.0.0.0/0', gw: 'x' }]], 'gw of a route'),
  ...['mtu', 'advmss', 'priority', 'table', 'scope'].flatMap((key) =>
    mistakes(
      'ipam.routes',
      [-1, 'x', 2 ** 40].map((value) => [{ dst: '0.0.0.0/0', [key]: value }]),
      `ipam.routes[0].${key}`,
    ),
  ),
  ...mistakes('ipam.resolvConf', TEXT),
  ...mistakes('ipam.dataDir', [...TEXT, 'relative']),
  ...mistakes('runtimeConfig.ipRanges', LIST),
  ...mistakes('runtimeConfig.ips', LIST),
  ...mistakes('runtimeConfig.ips', [['x']], 'invalid IP address: x'),
  ...mistakes('args.cni.ips', LIST),
  ...mistakes('args.cni.ips', [['x']], 'invalid IP address: x'),
];

const BACKEND = mistakes('backend', [5, 'pf', {}]);
const LONG_NAME = 'sixteen-bytes-xx';
const mapping = { hostPort: 9002, containerPort: 9002, protocol: 'tcp' };
const portMapping = (key: string, values: readonly unknown[]): Mistake[] =>
  mistakes(
    'runtimeConfig.portMappings',
    values.map((value) => [{ ...mapping, [key]: value }]),
    `runtimeConfig.portMappings[0].${key}`,
  );

/** Every key of every plugin, with every kind of mistake: type, range, unknown value, contradiction. */
export const MISTAKES: Readonly<Record<(typeof PLUGINS)[number]['name'], readonly Mistake[]>> = {
  loopback: [],
  bridge: [
    ...mistakes('bridge', [...TEXT, LONG_NAME, 'a/b', 'a b', '', '..', 'a%d']),
    ...[
      'isGateway',
      'isDefaultGateway',
      'forceAddress',
      'allowUplinkOverlap',
      'ipMasq',
      'hairpinMode',
      'promiscMode',
      'preserveDefaultVlan',
      'macspoofchk',
      'enabledad',
      'disableContainerInterface',
      'portIsolation',
    ].flatMap((key) => mistakes(key, FLAG)),
    ...mistakes('ipMasqBackend', [5, 'pf']),
    ...mistakes('mtu', ['1500', -1, 10, 2 ** 20, 1500.5, 'big']),
    ...mistakes('vlan', ['5', 5000, -1, 1.5]),
    ...mistakes('vlanTrunk', LIST),
    ...mistakes('vlanTrunk', [[{ id: 0 }], [{ minID: 5 }], [{ minID: 9, maxID: 5 }], [{ maxID: 5000 }]]),
    ...mistakes('runtimeConfig.mac', [5, 'x', '01:00:00:00:00:00', '00:00:00:00:00:00']),
    ...mistakes('args.cni.mac', [5, 'x']),
    ...mistakes('ipam', ['x', 5]),
    ...mistakes('ipam.type', TEXT),
    ...mistakes('dns', LIST.slice(0, 2)),
    ...mistakes('dns.nameservers', LIST),
    ...mistakes('dns.domain', TEXT),
    ...mistakes('dns.search', LIST),
    ...mistakes('dns.options', LIST),
    { key: 'hairpinMode', value: true, with: { promiscMode: true } },
    { key: 'disableContainerInterface', value: true },
    { key: 'vlan', value: 4000, with: { bridge: 'twelve-bytes' } },
    ...IPAM,
  ],
  'host-local': [
    ...mistakes('ipam', [5, 'x']),
    ...mistakes('ipam', [undefined], "missing 'ipam' key"),
    ...IPAM,
  ],
  firewall: [
    ...mistakes('backend', [5, {}]),
    ...mistakes('iptablesAdminChainName', [...TEXT, 'x'.repeat(29), 'a b', '"']),
    ...mistakes('firewalldZone', TEXT),
    ...mistakes('ingressPolicy', [5, 'closed']),
  ],
  portmap: [
    ...BACKEND,
    ...['snat', 'masqAll'].flatMap((key) => mistakes(key, FLAG)),
    ...mistakes('markMasqBit', ['13', 32, -1, 1.5]),
    ...mistakes('externalSetMarkChain', [5, '', 'a b', 'x'.repeat(29)]),
    ...['conditionsV4', 'conditionsV6'].flatMap((key) => [
      ...mistakes(key, LIST),
      ...mistakes(key, [[''], [5], ['-j', 'ACCEPT'], ['-p', 'tcp']]),
      { key, value: ['-d', '10.0.0.1'], with: { backend: 'nftables' } },
      { key, value: ['ip', 'daddr', '10.0.0.1'], with: { backend: 'iptables' } },
    ]),
    { key: 'conditionsV4', value: ['-d', '10.0.0.1'], with: { conditionsV6: ['ip6', 'daddr', 'fd00::1'] } },
    ...mistakes('portConflict', [5, 'fight']),
    { key: 'externalSetMarkChain', value: 'KUBE-MARK-MASQ', with: { markMasqBit: 5 } },
    { key: 'externalSetMarkChain', value: 'KUBE-MARK-MASQ', with: { backend: 'nftables' } },
    ...mistakes('runtimeConfig', [5, 'x']),
    ...mistakes('runtimeConfig.portMappings', LIST),
    ...portMapping('hostPort', ['80', 70_000, -1, 1.5]),
    ...portMapping('containerPort', ['80', 0, 70_000]),
    ...portMapping('protocol', ['icmp', 5, '']),
    ...portMapping('hostIP', ['x', 5, '10.0.0.0/8']),
    ...portMapping('range', [0, '2', 70_000]),
  ],
  'consul-tproxy': [
    ...['exemptions', 'ipv6', 'udp', 'dnsCapture', 'check'].flatMap((key) =>
      mistakes(key, [5, 'perhaps', {}]),
    ),
    ...BACKEND,
  ],
};
