/** Tables with one of every statement and object that the plugins write. */
import type { NetlinkRequest } from '../../../shared/kernel/netlink/message.ts';
import {
  addChain,
  addElements,
  addSet,
  addTable,
  ruleRequest,
} from '../../../shared/packetfilter/nftables/messages.ts';
import type {
  NftChain,
  NftElement,
  NftRule,
  NftSet,
  NftStatement,
  NftTable,
} from '../../../shared/packetfilter/nftables/model.ts';

export interface Sample {
  readonly table: NftTable;
  readonly chains: readonly NftChain[];
  readonly sets: readonly NftSet[];
  readonly elements: readonly NftElement[];
  readonly rules: readonly NftRule[];
}

/** One table with everything in it, in the family's own addresses. */
function sampleOf(family: 'ip' | 'ip6'): Sample {
  const v4 = family === 'ip';
  const table: NftTable = { family, name: 'sample', comment: 'Weft port mappings' };
  const own: NftChain = { table, name: 'own' };
  const prerouting: NftChain = {
    table,
    name: 'prerouting',
    hook: { type: 'nat', hook: 'prerouting', priority: -100 },
  };
  const postrouting: NftChain = {
    table,
    name: 'postrouting',
    hook: { type: 'nat', hook: 'postrouting', priority: 100 },
  };
  const filter: NftChain = {
    table,
    name: 'filter',
    hook: { type: 'filter', hook: 'forward', priority: 0, policy: 'accept' },
  };
  const address = v4 ? 'ipv4_addr' : 'ipv6_addr';
  const ports: NftSet = { table, name: 'ports', key: ['inet_proto', 'inet_service'], data: 'verdict' };
  const addressed: NftSet = {
    table,
    name: 'addressed',
    key: [address, 'inet_proto', 'inet_service'],
    data: 'verdict',
  };
  const targets: NftSet = {
    table,
    name: 'targets',
    key: ['inet_proto', 'inet_service'],
    data: [address, 'inet_service'],
  };
  const pairs: NftSet = { table, name: 'pairs', key: [address, address] };
  const networks: NftSet = { table, name: 'networks', key: [address], interval: true };
  const names: NftSet = { table, name: 'names', key: ['ifname'] };
  const spans: NftSet = { table, name: 'spans', key: ['inet_service'], interval: true };
  const a = v4 ? '10.0.0.2' : 'fd00::2';
  const net = v4 ? '10.1.0.0/16' : 'fd00:1::/64';
  const odd = v4 ? '10.16.0.0/12' : 'fd00:8::/29';
  const saddr = v4 ? 'ip saddr' : 'ip6 saddr';
  const daddr = v4 ? 'ip daddr' : 'ip6 daddr';
  const nat: NftStatement[][] = [
    [{ kind: 'fib daddr type local' }, { kind: 'lookup', fields: ['meta l4proto', 'th dport'], set: ports }],
    [
      { kind: 'fib daddr type local' },
      { kind: 'lookup', fields: [daddr, 'meta l4proto', 'th dport'], set: addressed },
    ],
    [{ kind: 'dnat map', family, fields: ['meta l4proto', 'th dport'], set: targets }],
    [
      { kind: 'l4proto', protocol: 'tcp' },
      { kind: 'dport', first: 80, last: 80 },
      { kind: 'counter' },
      { kind: 'dnat', family, address: a, port: { first: 8080, last: 8080 } },
    ],
    [
      { kind: 'l4proto', protocol: 'udp' },
      { kind: 'dport', first: 80, last: 90 },
      { kind: 'dnat', family, address: a, port: { first: 80, last: 90 } },
    ],
    [
      { kind: 'l4proto', protocol: 'sctp' },
      { kind: 'dnat', family, address: a },
    ],
    [
      { kind: 'l4proto', protocol: 'tcp' },
      { kind: 'redirect', port: 15001 },
    ],
  ];
  const source: NftStatement[][] = [
    [{ kind: 'lookup', fields: [saddr, daddr], set: pairs }, { kind: 'masquerade' }],
    [{ kind: 'ct status dnat' }, { kind: 'mark', value: 0x2000, mask: 0x2000 }, { kind: 'masquerade' }],
    [
      { kind: 'address', side: 'saddr', cidr: net },
      { kind: 'address', side: 'daddr', cidr: odd, not: true },
      { kind: 'masquerade' },
    ],
  ];
  const plain: NftStatement[][] = [
    [{ kind: 'address', side: 'daddr', cidr: a }, { kind: 'accept' }],
    [{ kind: 'set mark bits', bits: 0x2000 }],
    [
      { kind: 'interface', side: 'iifname', name: 'br0' },
      { kind: 'interface', side: 'oifname', name: 'br0', not: true },
      { kind: 'jump', chain: 'own' },
    ],
    [{ kind: 'ct state', states: ['established', 'related'] }, { kind: 'accept' }],
    [{ kind: 'lookup', fields: [daddr], set: networks }, { kind: 'return' }],
    [{ kind: 'lookup', fields: [saddr], set: networks, not: true }, { kind: 'drop' }],
    [
      { kind: 'lookup', fields: ['iifname'], set: names },
      { kind: 'goto', chain: 'own' },
    ],
    [
      { kind: 'l4proto', protocol: 'tcp' },
      { kind: 'lookup', fields: ['th dport'], set: spans },
      { kind: 'reject', with: 'tcp reset' },
    ],
  ];
  const local: NftStatement[][] = [
    [{ kind: 'skuid', first: 101, last: 101 }, { kind: 'return' }],
    [{ kind: 'skuid', first: 100, last: 200 }, { kind: 'return' }],
  ];
  const inChain = (chain: NftChain, list: NftStatement[][]): NftRule[] =>
    list.map((statements) => ({ chain, statements }));
  return {
    table,
    chains: [own, prerouting, postrouting, filter],
    sets: [ports, addressed, targets, pairs, networks, names, spans],
    elements: [
      { set: ports, key: ['tcp', '8080'], data: { kind: 'jump', chain: 'own' }, comment: 'net id' },
      { set: ports, key: ['udp', '53'], data: { kind: 'drop' } },
      { set: addressed, key: [a, 'tcp', '80'], data: { kind: 'goto', chain: 'own' } },
      { set: targets, key: ['tcp', '80'], data: { kind: 'value', value: [a, '8080'] } },
      { set: pairs, key: [a, a] },
      { set: networks, key: [net] },
      { set: networks, key: [a] },
      { set: names, key: ['br0'] },
      { set: spans, key: ['80-90'] },
      { set: spans, key: ['53'] },
    ],
    rules: [
      ...inChain(prerouting, nat),
      ...inChain(postrouting, source),
      ...inChain(filter, plain),
      ...inChain({ ...own }, local),
      { chain: own, statements: [{ kind: 'counter' }, { kind: 'return' }], comment: 'the last rule' },
    ],
  };
}

/** What only an inet or a bridge table holds. */
function inetSample(): Sample {
  const table: NftTable = { family: 'inet', name: 'both' };
  const output: NftChain = { table, name: 'output', hook: { type: 'nat', hook: 'output', priority: -100 } };
  const filter: NftChain = {
    table,
    name: 'filter',
    hook: { type: 'filter', hook: 'output', priority: 0, policy: 'drop' },
  };
  const rules: [NftChain, NftStatement[]][] = [
    [output, [{ kind: 'nfproto', family: 'ipv6' }, { kind: 'return' }]],
    [output, [{ kind: 'address', side: 'daddr', cidr: '127.0.0.0/8' }, { kind: 'return' }]],
    [
      output,
      [
        { kind: 'address', side: 'saddr', cidr: 'fd00::/64' },
        { kind: 'address', side: 'daddr', cidr: 'fd00::9' },
        { kind: 'return' },
      ],
    ],
    [
      output,
      [
        { kind: 'l4proto', protocol: 'tcp' },
        { kind: 'dnat', family: 'ip', address: '10.0.0.1', port: { first: 8600, last: 8600 } },
      ],
    ],
    [filter, [{ kind: 'reject', with: 'icmpx port-unreachable' }]],
    [filter, [{ kind: 'interface', side: 'oifname', name: 'lo' }, { kind: 'accept' }]],
  ];
  return {
    table,
    chains: [output, filter],
    sets: [],
    elements: [],
    rules: rules.map(([chain, statements]) => ({ chain, statements })),
  };
}

function bridgeSample(): Sample {
  const table: NftTable = { family: 'bridge', name: 'nat' };
  const prerouting: NftChain = {
    table,
    name: 'PREROUTING',
    hook: { type: 'filter', hook: 'prerouting', priority: -300, policy: 'accept' },
  };
  const own: NftChain = { table, name: 'cni-br-iface-x-mac' };
  return {
    table,
    chains: [own, prerouting],
    sets: [],
    elements: [],
    rules: [
      {
        chain: prerouting,
        statements: [
          { kind: 'interface', side: 'iifname', name: 'veth1' },
          { kind: 'jump', chain: own.name },
        ],
        comment: 'macspoofchk-x-eth0',
      },
      {
        chain: own,
        statements: [{ kind: 'ether saddr', mac: '02:00:00:00:00:01' }, { kind: 'return' }],
        comment: 'macspoofchk-x-eth0',
      },
      { chain: own, statements: [{ kind: 'drop' }], comment: 'macspoofchk-x-eth0' },
    ],
  };
}

export const SAMPLES: readonly (readonly [string, Sample])[] = [
  ['ip', sampleOf('ip')],
  ['ip6', sampleOf('ip6')],
  ['inet', inetSample()],
  ['bridge', bridgeSample()],
];

/** A sample as the messages that write it. */
export function requestsOf({ table, chains, sets, elements, rules }: Sample): NetlinkRequest[] {
  return [
    addTable(table),
    ...sets.map((set, at) => addSet(set, at + 1)),
    ...chains.map(addChain),
    ...sets.flatMap((set) => {
      const own = elements.filter((element) => element.set === set);
      return own.length === 0 ? [] : [addElements(set, own)];
    }),
    ...rules.map(ruleRequest),
  ];
}
