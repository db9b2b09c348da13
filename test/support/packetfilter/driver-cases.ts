/**
 * What every driver of iptables' tables does, on a host of any kind: the kernel's, or the one in memory
 * (fake-host.ts).
 */
import * as assert from 'uvu/assert';
import { CniError } from '../../../shared/cni/errors.ts';
import { isUnmanaged } from '../../../shared/packetfilter/compare.ts';
import { parseRule } from '../../../shared/packetfilter/iptables/parse.ts';
import type {
  Family,
  PacketFilterDriver,
  Rule,
  TableChange,
  TableName,
} from '../../../shared/packetfilter/ruleset.ts';
import type { Suite } from '../suite.ts';

export interface IptablesHost {
  driver(): PacketFilterDriver;
  /** Empties the tables filter and nat of both families. */
  reset(): void;
  /** One iptables or ip6tables command as an operator types it. */
  command(line: string): void;
  /** As iptables-save prints it, without comments and counters. */
  saved(table: TableName, family?: Family): string;
  /** Grows with every transaction that changes a table. */
  transactions(): number;
}

const rule = (text: string): Rule => parseRule(text) as Rule;

const CHANGE: TableChange = {
  family: 'ipv4',
  table: 'filter',
  ensureChains: ['NOMAD-ADMIN'],
  setChains: [{ chain: 'CNI-X', rules: [rule('-s 10.0.0.2/32 -j ACCEPT'), rule('-j RETURN')] }],
  setJumps: [{ chain: 'FORWARD', to: 'CNI-X', rules: [rule('-m comment --comment "a \\"b\\"" -j CNI-X')] }],
};

/** What an ADD of firewall, bridge and portmap writes, a second one of portmap, and a DEL. */
export const ADDITION: readonly TableChange[] = [
  {
    family: 'ipv4',
    table: 'filter',
    ensureChains: ['CNI-FORWARD', 'NOMAD-ADMIN'],
    ensureRules: [
      {
        chain: 'FORWARD',
        rule: rule('-m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD'),
        at: 'first',
      },
      { chain: 'CNI-FORWARD', rule: rule('-j NOMAD-ADMIN'), at: 'first' },
      {
        chain: 'CNI-FORWARD',
        rule: rule('-d 10.0.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT'),
        at: 'last',
      },
      { chain: 'CNI-FORWARD', rule: rule('-s 10.0.0.2/32 -j ACCEPT'), at: 'last' },
    ],
  },
  {
    family: 'ipv4',
    table: 'nat',
    ensureChains: ['CNI-HOSTPORT-DNAT'],
    setChains: [
      { chain: 'CNI-DN-1', rules: [rule('-p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.2:8080')] },
      { chain: 'CNI-1', rules: [rule('! -d 224.0.0.0/4 -m comment --comment x -j MASQUERADE')] },
    ],
    setJumps: [
      { chain: 'POSTROUTING', to: 'CNI-1', rules: [rule('-s 10.0.0.2/32 -m comment --comment x -j CNI-1')] },
      {
        chain: 'CNI-HOSTPORT-DNAT',
        to: 'CNI-DN-1',
        rules: [rule('-p tcp -m multiport --dports 80 -j CNI-DN-1')],
      },
    ],
    ensureRules: [
      { chain: 'PREROUTING', rule: rule('-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT'), at: 'last' },
    ],
  },
];
const REPLACEMENT: TableChange = {
  family: 'ipv4',
  table: 'nat',
  setChains: [
    { chain: 'CNI-DN-1', rules: [rule('-p udp -m udp --dport 53 -j DNAT --to-destination 10.0.0.3:53')] },
  ],
  setJumps: [
    {
      chain: 'CNI-HOSTPORT-DNAT',
      to: 'CNI-DN-1',
      rules: [rule('-p udp -m multiport --dports 53 -j CNI-DN-1')],
    },
  ],
};
export const REMOVAL: readonly TableChange[] = [
  { family: 'ipv4', table: 'nat', deleteChains: ['CNI-1', 'CNI-DN-1', 'CNI-NONE'] },
  {
    family: 'ipv4',
    table: 'filter',
    removeRules: [
      { chain: 'CNI-FORWARD', rule: rule('-s 10.0.0.2/32 -j ACCEPT') },
      { chain: 'CNI-FORWARD', match: ({ destination }) => destination?.value === '10.0.0.2/32' },
    ],
  },
];
const OF_OTHERS = [
  'iptables -A FORWARD -p esp -j ACCEPT',
  'iptables -N DOCKER-USER',
  'iptables -I FORWARD -j DOCKER-USER',
  'iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE',
];

/** Rules of every shape that the plugins write. */
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

/** The driver of a host's iptables tables. */
export function driverCases(test: Suite, host: IptablesHost): void {
  const { command, saved } = host;
  const apply = (...changes: Parameters<PacketFilterDriver['apply']>[0]): void =>
    host.driver().apply(changes);
  /** Chains that are not the kernel's, and all rules. */
  const rules = (table: TableName, family: Family = 'ipv4'): string[] =>
    saved(table, family)
      .split('\n')
      .filter((line) => line.startsWith('-A ') || /^:\S+ -$/.test(line));
  const both = (): string[] => [...rules('filter'), ...rules('nat')];
  /** Tells how many transactions `work` makes. */
  const transactions = (work: () => void): number => {
    const before = host.transactions();
    work();
    return host.transactions() - before;
  };

  test.beforeEach(() => host.reset());

  test('a change is committed once; nothing is committed when it is fulfilled', () => {
    const expected = [
      ':CNI-X -',
      ':NOMAD-ADMIN -',
      '-A FORWARD -m comment --comment "a \\"b\\"" -j CNI-X',
      '-A CNI-X -s 10.0.0.2/32 -j ACCEPT',
      '-A CNI-X -j RETURN',
    ];
    assert.is(
      transactions(() => apply(CHANGE)),
      1,
    );
    assert.equal(rules('filter'), expected);
    assert.is(
      transactions(() => apply(CHANGE)),
      0,
    );
    assert.equal(rules('filter'), expected);
    const removal: TableChange = { family: 'ipv4', table: 'filter', deleteChains: ['CNI-X', 'NOMAD-ADMIN'] };
    assert.is(
      transactions(() => apply(removal)),
      1,
    );
    assert.equal(rules('filter'), []);
  });

  test('rules are read back as data, those of other programs as unmanaged', () => {
    command('iptables -N OTHER');
    command('iptables -A OTHER -p esp -j ACCEPT');
    command('iptables -A OTHER -m comment --comment "it\'s" -j DROP');
    const { chains } = host.driver().read('ipv4', 'filter');
    assert.ok([...chains.keys()].includes('OTHER'));
    const [unknown, known, ...more] = chains.get('OTHER') ?? [];
    assert.ok(unknown !== undefined && isUnmanaged(unknown));
    assert.equal(known, { matches: [{ kind: 'comment', comment: "it's" }], target: { kind: 'drop' } });
    assert.is(more.length, 0);
    assert.is(chains.get('NONE'), undefined);
  });

  test('ADD, ADD again, another ADD and DEL leave the rules of other programs in their places', () => {
    for (const line of OF_OTHERS) command(line);
    const filter = [
      ':CNI-FORWARD -',
      ':DOCKER-USER -',
      ':NOMAD-ADMIN -',
      '-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD',
      '-A FORWARD -j DOCKER-USER',
      '-A FORWARD -p esp -j ACCEPT',
      '-A CNI-FORWARD -j NOMAD-ADMIN',
    ];
    const accepted = [
      '-A CNI-FORWARD -d 10.0.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      '-A CNI-FORWARD -s 10.0.0.2/32 -j ACCEPT',
    ];
    const nat = (forwarded: string, jump: string): string[] => [
      ':CNI-1 -',
      ':CNI-DN-1 -',
      ':CNI-HOSTPORT-DNAT -',
      '-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT',
      '-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE',
      '-A POSTROUTING -s 10.0.0.2/32 -m comment --comment x -j CNI-1',
      '-A CNI-1 ! -d 224.0.0.0/4 -m comment --comment x -j MASQUERADE',
      `-A CNI-DN-1 ${forwarded}`,
      `-A CNI-HOSTPORT-DNAT ${jump}`,
    ];
    const tcp = nat(
      '-p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.2:8080',
      '-p tcp -m multiport --dports 80 -j CNI-DN-1',
    );
    const udp = nat(
      '-p udp -m udp --dport 53 -j DNAT --to-destination 10.0.0.3:53',
      '-p udp -m multiport --dports 53 -j CNI-DN-1',
    );
    const left = [
      ':CNI-HOSTPORT-DNAT -',
      '-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT',
      '-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE',
    ];
    apply(...ADDITION);
    assert.equal(both(), [...filter, ...accepted, ...tcp]);
    assert.is(
      transactions(() => apply(...ADDITION)),
      0,
    );
    apply(REPLACEMENT);
    assert.equal(both(), [...filter, ...accepted, ...udp]);
    apply(...REMOVAL);
    assert.equal(both(), [...filter, ...left]);
    assert.is(
      transactions(() => apply(...REMOVAL)),
      0,
    );
  });

  test('a displaced first rule moves back, extra copies are removed, also in IPv6', () => {
    command('ip6tables -N CNI-FORWARD');
    command('ip6tables -A FORWARD -p esp -j ACCEPT');
    command('ip6tables -A FORWARD -j CNI-FORWARD');
    command('ip6tables -A FORWARD -j CNI-FORWARD');
    for (const target of ['DROP', 'ACCEPT', 'RETURN', 'DROP']) command(`ip6tables -A OUTPUT -j ${target}`);
    apply({
      family: 'ipv6',
      table: 'filter',
      ensureChains: ['CNI-FORWARD'],
      ensureRules: [
        { chain: 'FORWARD', rule: rule('-j CNI-FORWARD'), at: 'first' },
        { chain: 'OUTPUT', rule: rule('-j DROP'), at: 'last' },
      ],
    });
    assert.equal(rules('filter', 'ipv6'), [
      ':CNI-FORWARD -',
      '-A FORWARD -j CNI-FORWARD',
      '-A FORWARD -p esp -j ACCEPT',
      '-A OUTPUT -j DROP',
      '-A OUTPUT -j ACCEPT',
      '-A OUTPUT -j RETURN',
    ]);
  });

  test('a chain is deleted with every rule that leads to it, and no other', () => {
    for (const chain of ['OLD', 'OLD-2', 'KEPT']) command(`iptables -N ${chain}`);
    for (const words of ['FORWARD -g OLD', 'FORWARD -j OLD-2', 'KEPT -p esp -j OLD', 'OLD -j OLD-2']) {
      command(`iptables -A ${words}`);
    }
    command('iptables -A INPUT -m comment --comment OLD -j ACCEPT');
    apply({ family: 'ipv4', table: 'filter', deleteChains: ['OLD'] });
    assert.equal(rules('filter'), [
      ':KEPT -',
      ':OLD-2 -',
      '-A INPUT -m comment --comment OLD -j ACCEPT',
      '-A FORWARD -j OLD-2',
    ]);
  });

  test('every rule that the plugins write is listed byte for byte, and found again', () => {
    for (const [table, texts] of [
      ['filter', FILTER_RULES],
      ['nat', NAT_RULES],
    ] as const) {
      const setChains = texts.map((text, at) => ({ chain: `X${at}`, rules: [rule(text)] }));
      apply({ family: 'ipv4', table, setChains });
      for (const [at, text] of texts.entries()) assert.ok(rules(table).includes(`-A X${at} ${text}`), text);
      assert.is(
        transactions(() => apply({ family: 'ipv4', table, setChains })),
        0,
      );
    }
  });

  test('a transaction with a jump to a chain that does not exist changes nothing', () => {
    command('iptables -N KEPT');
    const before = saved('filter');
    const bad: TableChange = {
      ...CHANGE,
      ensureRules: [{ chain: 'INPUT', rule: rule('-j NO-SUCH-CHAIN'), at: 'last' }],
      deleteChains: ['KEPT'],
    };
    const error = cniError(() => apply(bad));
    assert.is(error.code, 999);
    assert.match(error.message, /refused (to|a) change (of )?table filter \(ipv4\)/);
    assert.match(`${error.message} ${error.details ?? ''}`, /NO-SUCH-CHAIN|ENOENT/);
    assert.is(saved('filter'), before);
  });

  test('a rule beyond the limits of its match changes nothing', () => {
    const before = both();
    const ports = Array.from({ length: 16 }, (_, at) => at + 1).join(',');
    const tooLong = rule(`-p tcp -m multiport --dports ${ports} -j ACCEPT`);
    assert.throws(() => apply(CHANGE, { ...CHANGE, setChains: [{ chain: 'CNI-Y', rules: [tooLong] }] }));
    assert.equal(both(), before);
  });

  test('one call changes both families and both tables', () => {
    apply(
      CHANGE,
      { family: 'ipv6', table: 'nat', ensureChains: ['CNI-6'] },
      { family: 'ipv4', table: 'nat', ensureChains: ['CNI-4'] },
    );
    assert.is(rules('filter').length, 5);
    assert.equal(rules('nat', 'ipv6'), [':CNI-6 -']);
    assert.equal(rules('nat'), [':CNI-4 -']);
  });

  test('a plan sees the table as it is, and may refuse', () => {
    command('iptables -N SEEN');
    const plan = (state: { chains: ReadonlyMap<string, unknown> }): never => {
      throw new CniError(7, `saw ${state.chains.has('SEEN')}`);
    };
    const before = host.transactions();
    assert.is(cniError(() => apply({ family: 'ipv4', table: 'filter', plan })).message, 'saw true');
    assert.is(host.transactions(), before);
  });
}

/** The error that `work` must throw. */
export function cniError(work: () => void): CniError {
  try {
    work();
  } catch (thrown) {
    assert.instance(thrown, CniError);
    return thrown as CniError;
  }
  throw new Error('nothing was thrown');
}
