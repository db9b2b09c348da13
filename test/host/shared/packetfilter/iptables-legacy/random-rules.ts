import type {
  Family,
  Match,
  Negatable,
  PortRange,
  Rule,
  TableName,
  Target,
} from '../../../../../shared/packetfilter/ruleset.ts';
import type { Random } from '../../../../support/random.ts';

/** A rule of a shape that the suite can write and iptables takes; with `jumps`, its jump leads to one of those chains. */
export function randomRule(random: Random, family: Family, table: TableName, jumps: readonly string[]): Rule {
  const protocol = random.pick([
    undefined,
    'tcp',
    'udp',
    'sctp',
    family === 'ipv4' ? 'icmp' : 'icmpv6',
  ] as const);
  const ported = protocol === 'tcp' || protocol === 'udp' || protocol === 'sctp';
  const parts: Partial<Rule> = {
    ...some(random, 'source', () => address(random, family)),
    ...some(random, 'destination', () => address(random, family)),
    ...(table === 'filter' ? some(random, 'inInterface', () => interfaceName(random)) : {}),
    ...some(random, 'outInterface', () => interfaceName(random)),
    ...(protocol === undefined ? {} : { protocol }),
  };
  const matches = MATCHES.filter(([needsPort]) => !needsPort || ported)
    .filter(() => random.chance(0.25))
    .map(([, make]) => make(random));
  const target = randomTarget(random, { family, table, ported, tcp: protocol === 'tcp', jumps });
  return { ...parts, ...(matches.length > 0 ? { matches } : {}), target };
}

function some<Key extends string, T>(random: Random, key: Key, make: () => T): Partial<Record<Key, T>> {
  return random.chance(0.4) ? ({ [key]: make() } as Record<Key, T>) : {};
}

function address(random: Random, family: Family): Negatable {
  const values =
    family === 'ipv4'
      ? ['10.0.0.2/32', '10.88.0.0/16', '192.0.2.128/25', '128.0.0.0/1', '224.0.0.0/4', '172.26.64.0/20']
      : ['fd00::2/128', 'fd00::/64', 'fd00:1:2::/47', '8000::/1', 'ff00::/8', '2001:db8::80/121'];
  return negatable(random, random.pick(values));
}

function interfaceName(random: Random): Negatable {
  return negatable(random, random.pick(['br0', 'nomad', 'br+', 'lo', 'abcdefghijklmno', 'v']));
}

function negatable(random: Random, value: string): Negatable {
  return random.chance(0.3) ? { value, negated: true } : { value };
}

function range(random: Random): PortRange {
  const first = 1 + random.below(60_000);
  return { first, last: random.chance(0.5) ? first : first + 1 + random.below(5_000) };
}

/** Whether the match needs a protocol with ports, and how one is made. */
const MATCHES: readonly [needsPort: boolean, make: (random: Random) => Match][] = [
  [
    false,
    (random) => ({
      kind: 'comment',
      comment: random.pick(['x', 'a "b" \'c\' \\', 'name: "net1" id: "c"', 'ä'.repeat(127)]),
    }),
  ],
  [
    false,
    (random) => ({
      kind: 'conntrack',
      states: random.pick([['NEW'], ['RELATED', 'ESTABLISHED'], ['INVALID', 'NEW']] as const),
    }),
  ],
  [false, () => ({ kind: 'addrtype', destinationType: 'LOCAL' })],
  [false, (random) => ({ kind: 'owner', uid: { first: 101, last: random.pick([101, 4_000_000_000]) } })],
  [false, (random) => mark(random)],
  [
    true,
    (random) => ({
      kind: 'multiport',
      destinationPorts: Array.from({ length: 1 + random.below(7) }, () => range(random)),
    }),
  ],
  [true, (random) => ({ kind: 'port', destinationPort: range(random) })],
];

function mark(random: Random): Match {
  const match = {
    kind: 'mark',
    value: random.pick([1, 0x2000, 0x8000_0001]),
    mask: random.pick([0x2000, 0xffff_ffff]),
  } as const;
  return random.chance(0.3) ? { ...match, negated: true } : match;
}

interface Circumstances {
  readonly family: Family;
  readonly table: TableName;
  readonly ported: boolean;
  readonly tcp: boolean;
  readonly jumps: readonly string[];
}

function randomTarget(random: Random, { family, table, ported, tcp, jumps }: Circumstances): Target {
  const plain = random.pick(['accept', 'drop', 'return'] as const);
  const kinds: Target[] = [
    // The kernel does not let table nat drop.
    { kind: table === 'nat' && plain === 'drop' ? 'return' : plain },
    { kind: 'mark', value: random.pick([0x2000, 0x8000_0000]), mask: random.pick([0x2000, 0xffff_ffff]) },
    ...jumps.map((chain): Target => ({ kind: 'jump', chain })),
  ];
  if (table === 'filter') {
    kinds.push({
      kind: 'reject',
      with: family === 'ipv4' ? 'icmp-port-unreachable' : 'icmp6-port-unreachable',
    });
    if (tcp) kinds.push({ kind: 'reject', with: 'tcp-reset' });
  } else {
    kinds.push({ kind: 'masquerade' });
    kinds.push({ kind: 'dnat', to: family === 'ipv4' ? '10.0.0.2' : 'fd00::2' });
    if (ported) {
      const ports = random.pick(['80', '8000-8099', '8000-8099/9000']);
      kinds.push({ kind: 'dnat', to: `${family === 'ipv4' ? '10.0.0.2' : '[fd00::2]'}:${ports}` });
      kinds.push({ kind: 'redirect', port: 1 + random.below(65_535) });
    }
  }
  return random.pick(kinds);
}
