import * as assert from 'uvu/assert';
import { run, rules, sh } from '../../../support/variants.ts';
import { generation, listed } from '../../../support/port-host.ts';
import { add, call, CHAIN, config, scene, tcp, udp } from '../../../support/portmap-scene.ts';
import { ask, bad, good, HOST, OUTSIDE, resultOf } from '../../../support/port-host.ts';

/** The portmap executable with its nftables backend: what each configuration makes, and who gets through. */
const s = scene('what each configuration makes', 'nftables');
const table = (): string[] => listed('table ip weft_hostports');
const own = (): string[] => listed(`chain ip weft_hostports ${CHAIN}`).slice(3, -2);

s.test('one table a family, and nothing written the second time', () => {
  const v4 = { ...s.c1, prevResult: resultOf(s.c1.netns, ['10.88.0.11/16']) };
  const nomad = ['tcp', 'udp'].map((Protocol) => ({
    HostPort: 9002,
    ContainerPort: 80,
    Protocol,
    HostIP: '',
  }));
  add(v4, nomad);
  assert.equal(
    table(),
    golden(
      [
        `elements = { tcp . 9002 comment "name: net1 id: c1" : jump ${CHAIN},`,
        `udp . 9002 comment "name: net1 id: c1" : jump ${CHAIN} }`,
      ],
      OWN,
    ),
  );
  assert.is(run('nft', 'list', 'tables'), 'table ip weft_hostports\n');
  assert.equal(rules('nat'), [], 'nothing of iptables');
  const before = generation();
  add(v4, nomad);
  call('CHECK', v4, nomad);
  assert.is(generation(), before);
  call('DEL', v4, nomad);
  assert.equal(table(), golden([], []));
  const after = generation();
  call('DEL', v4, nomad);
  assert.is(generation(), after, 'a second DEL has nothing to commit');
});

s.test('both families, and addresses of the host of one family', () => {
  const only = { hostPort: 8443, containerPort: 81, protocol: 'tcp', hostIP: '2001:DB8::0:1' };
  const mappings = [tcp(8080), only, { ...only, hostIP: HOST.ipv4 }, { ...tcp(8081), hostIP: '0.0.0.0' }];
  add(s.c1, mappings);
  call('CHECK', s.c1, mappings);
  for (const [address, port, answer] of [
    [HOST.ipv4, 8443, `one ${OUTSIDE.ipv4}`],
    [HOST.other, 8080, `one ${OUTSIDE.ipv4}`],
    [HOST.ipv6, 8443, `one ${OUTSIDE.ipv6}`],
    [HOST.ipv6, 8080, `one ${OUTSIDE.ipv6}`],
    [HOST.ipv4, 8081, `one ${OUTSIDE.ipv4}`],
  ] as const)
    assert.is(ask('outside', 'tcp', address, port), answer, `${address} ${port}`);
  assert.not.match(ask('outside', 'tcp', HOST.other, 8443), /one/);
  assert.not.match(ask('outside', 'tcp', HOST.ipv6, 8081), /one/);
});

s.test('snat off: no marks, source kept everywhere; masqAll: no source is kept', () => {
  sh('sysctl -qw net.ipv4.conf.br0.route_localnet=0');
  add(s.c1, [tcp(9002)], { snat: false });
  assert.not.match(s.ruleset(), /mark set|masquerade/);
  assert.is(ask('outside', 'tcp', HOST.ipv4, 9002), `one ${OUTSIDE.ipv4}`);
  assert.is(sh('sysctl -n net.ipv4.conf.br0.route_localnet').trim(), '0');
  call('CHECK', s.c1, [tcp(9002)], { snat: false });
  add(s.c1, [tcp(9002)], { masqAll: true });
  assert.is(ask('outside', 'tcp', HOST.ipv4, 9002), 'one 10.88.0.1');
  assert.is(ask('outside', 'tcp', HOST.ipv6, 9002), 'one fd00:88::1');
});

s.test('another mark bit', () => {
  add(s.c1, [tcp(9002)], { markMasqBit: 31 });
  assert.match(s.ruleset(), /ct status dnat meta mark .*0x80000000.* masquerade/);
  assert.is(ask('', 'tcp', '127.0.0.1', 9002), 'one 10.88.0.1');
  add(s.c2, [tcp(9003)], { name: 'net2', markMasqBit: 0 });
  assert.is(ask('', 'tcp', '127.0.0.1', 9003), 'two 10.88.0.1', 'both bits are asked for');
});

s.test('conditions narrow down one network and no other', () => {
  const narrow = {
    conditionsV4: ['ip', 'saddr', '!=', OUTSIDE.ipv4],
    conditionsV6: ['ip6', 'saddr', 'fd00::/8'],
  };
  add(s.c1, [tcp(9002)], narrow);
  add(s.c2, [tcp(9003)], { name: 'net2' });
  for (const address of [HOST.ipv4, HOST.ipv6]) {
    assert.not.match(ask('outside', 'tcp', address, 9002), /one/);
    assert.match(ask('outside', 'tcp', address, 9003), /^two/);
  }
  assert.match(ask('', 'tcp', HOST.ipv4, 9002), /^one /);
  call('CHECK', s.c1, [tcp(9002)], narrow);
  const before = generation();
  add(s.c1, [tcp(9002)], narrow);
  assert.is(generation(), before, 'words are known again');
  assert.equal(
    own().filter((line) => !line.startsWith(`ip saddr != ${OUTSIDE.ipv4} `)),
    [],
    'no packet is marked that the conditions leave alone',
  );
});

s.test('words that nft does not understand are refused before anything is changed', () => {
  for (const words of [
    ['ip', 'saddr', 'nonsense'],
    ['tcp', 'dport', '{', '1,2', '}'],
  ]) {
    const error = bad('portmap', 'ADD', s.c1, config(s.c1, [tcp(9002)], { conditionsV6: words }));
    assert.is(error.code, 7);
    assert.match(error.msg, /"conditionsV6" is no valid nftables condition/);
    assert.is(s.ruleset(), '');
  }
});

s.test(
  'what only iptables understands chooses it on a node of nftables; both languages at once are refused',
  () => {
    add(s.c1, [tcp(9002)], { conditionsV4: ['!', '-s', OUTSIDE.ipv4] });
    assert.match(rules('nat').join('\n'), /! -s 192\.0\.2\.2\/32/);
    call('DEL', s.c1, [tcp(9002)]);
    for (const program of ['iptables', 'ip6tables']) run(program, '-t', 'nat', '-N', 'KUBE-MARK-MASQ');
    add(s.c1, [tcp(9002)], { externalSetMarkChain: 'KUBE-MARK-MASQ' });
    assert.match(rules('nat').join('\n'), /-j KUBE-MARK-MASQ/);
    const mixed = { conditionsV4: ['-s', '10.0.0.0/8'], conditionsV6: ['ip6', 'saddr', 'fd00::/8'] };
    assert.match(
      bad('portmap', 'ADD', s.c2, config(s.c2, [tcp(9003)], mixed)).msg,
      /"conditionsV4" is for the iptables backend and "conditionsV6" for the nftables backend/,
    );
  },
);

s.test('runs of ports, shifted or not', () => {
  const runs = [
    { hostPort: 18000, containerPort: 80, protocol: 'tcp', range: 3 },
    { hostPort: 80, containerPort: 80, protocol: 'udp', range: 3 },
  ];
  add(s.c1, runs);
  call('CHECK', s.c1, runs);
  for (const at of [0, 1, 2]) {
    assert.match(ask('outside', 'tcp', HOST.ipv4, 18000 + at), /^one/);
    assert.match(ask('outside', 'tcp', HOST.ipv6, 18000 + at), /^one/);
    assert.match(ask('outside', 'udp', HOST.ipv4, 80 + at), /^one/);
  }
  assert.not.match(ask('outside', 'tcp', HOST.ipv4, 18003), /one/);
  call('DEL', s.c1, []);
  good('portmap', 'DEL', s.c1, config(undefined, undefined));
  assert.not.match(s.ruleset(), /CNI-DN/);
});

s.test('ten thousand ports of each kind are added, checked and deleted in seconds', () => {
  const many = ['tcp', 'udp'].map((protocol) => ({
    hostPort: 20000,
    containerPort: 20000,
    protocol,
    range: 10000,
  }));
  const began = Date.now();
  for (const command of ['ADD', 'CHECK', 'DEL']) call(command, s.c1, many);
  assert.ok(Date.now() - began < 20_000, `${Date.now() - began} ms`);
  assert.not.match(s.ruleset(), /20000/);
});

s.test('the next ADD completes a damaged table', () => {
  add(s.c1, [tcp(9002), udp(9002)]);
  for (const line of [
    'delete chain ip weft_hostports postrouting',
    'flush chain ip weft_hostports prerouting',
    'flush map ip weft_hostports ports',
    `flush chain ip weft_hostports ${CHAIN}`,
    'flush ruleset',
  ]) {
    run('nft', ...line.split(' '));
    assert.match(bad('portmap', 'CHECK', s.c1, config(s.c1, [tcp(9002), udp(9002)])).msg, /incomplete/, line);
    add(s.c1, [tcp(9002), udp(9002)]);
    call('CHECK', s.c1, [tcp(9002), udp(9002)]);
    assert.match(ask('outside', 'tcp', HOST.ipv4, 9002), /^one/);
    assert.is(ask('', 'tcp', '127.0.0.1', 9002), 'one 10.88.0.1');
  }
});

const OWN = [
  `chain ${CHAIN} {`,
  'comment "name: net1 id: c1"',
  'ip saddr 10.88.0.0/16 meta mark set meta mark | 0x00002000',
  'ip saddr 127.0.0.1 meta mark set meta mark | 0x00002000',
  'tcp dport 9002 dnat to 10.88.0.11:80 comment "tcp 9002-9002 * > 10.88.0.11"',
  'udp dport 9002 dnat to 10.88.0.11:80 comment "udp 9002-9002 * > 10.88.0.11"',
  '}',
];

function golden(elements: readonly string[], own: readonly string[]): string[] {
  const lookups = [
    'fib daddr type local ip daddr . meta l4proto . th dport vmap @address_ports',
    'fib daddr type local meta l4proto . th dport vmap @ports',
    '}',
  ];
  return [
    'table ip weft_hostports {',
    'comment "port mappings of the weft portmap plugin"',
    ...['map ports {', 'type inet_proto . inet_service : verdict', ...elements, '}'],
    ...['map address_ports {', 'type ipv4_addr . inet_proto . inet_service : verdict', '}'],
    ...['chain postrouting {', 'type nat hook postrouting priority srcnat; policy accept;'],
    ...['ct status dnat meta mark & 0x00002000 == 0x00002000 masquerade', '}'],
    ...['chain prerouting {', 'type nat hook prerouting priority dstnat; policy accept;', ...lookups],
    ...['chain output {', 'type nat hook output priority -100; policy accept;', ...lookups],
    ...own,
    '}',
  ];
}

s.test.run();
