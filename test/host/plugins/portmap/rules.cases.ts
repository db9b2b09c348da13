import * as assert from 'uvu/assert';
import { clear, rules, run, saved, sh, type Variant } from '../../../support/variants.ts';
import { add, call, CHAIN, chainOf, config, scene, tcp } from '../../../support/portmap-scene.ts';
import { ask, bad, commits, HOST, OUTSIDE, resultOf } from '../../../support/port-host.ts';

/** The portmap executable on a real kernel; the same for both variants of iptables. */
export function rulesCases(variant: Variant): void {
  const s = scene('what each configuration makes of table nat', variant);

  s.test('hands on the result of the plugin before it', () => {
    const { result } = add(s.c1, [tcp(9002)]);
    assert.equal(Object.keys(result as object).sort(), ['cniVersion', 'interfaces', 'ips']);
    assert.equal((result as { ips: object[] }).ips.length, 2);
  });

  s.test('writes what the reference writes, and nothing the second time', () => {
    const nomad = ['tcp', 'udp'].map((Protocol) => ({
      HostPort: 9002,
      ContainerPort: 80,
      Protocol,
      HostIP: '',
    }));
    const v4 = { ...s.c1, prevResult: resultOf(s.c1.netns, ['10.88.0.11/16']) };
    const golden = goldenOf();
    for (const expected of [['iptables'], []]) {
      add(v4, nomad);
      assert.is(saved('nat'), golden);
      assert.equal(commits(), expected);
    }
    assert.equal(rules('nat', 'ipv6'), []);
    call('CHECK', v4, nomad);
    assert.equal(commits(), []);
    call('DEL', v4, nomad);
    const shared = golden.split('\n').filter((line) => !line.includes('CNI-DN-'));
    assert.is(saved('nat'), shared.join('\n'));
    commits();
    call('DEL', v4, nomad);
    assert.is(saved('nat'), shared.join('\n'));
    assert.equal(commits(), [], 'a second DEL has nothing to commit');
  });

  s.test('both families, and addresses of the host of one family', () => {
    const only = { hostPort: 8443, containerPort: 81, protocol: 'tcp', hostIP: '2001:DB8::0:1' };
    add(s.c1, [tcp(8080), only, { ...only, hostIP: HOST.ipv4 }, { ...tcp(8081), hostIP: '0.0.0.0' }]);
    assert.equal(
      chainOf(CHAIN).filter((line) => line.includes('DNAT')),
      [
        `-A ${CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.88.0.11:80`,
        `-A ${CHAIN} -d 192.0.2.1/32 -p tcp -m tcp --dport 8443 -j DNAT --to-destination 10.88.0.11:81`,
        `-A ${CHAIN} -p tcp -m tcp --dport 8081 -j DNAT --to-destination 10.88.0.11:80`,
      ],
    );
    assert.equal(
      rules('nat', 'ipv6').filter((line) => line.startsWith(`-A ${CHAIN}`)),
      [
        `-A ${CHAIN} -s fd00:88::/64 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK`,
        `-A ${CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination [fd00:88::11]:80`,
        `-A ${CHAIN} -s fd00:88::/64 -d 2001:db8::1/128 -p tcp -m tcp --dport 8443 -j CNI-HOSTPORT-SETMARK`,
        `-A ${CHAIN} -d 2001:db8::1/128 -p tcp -m tcp --dport 8443 -j DNAT --to-destination [fd00:88::11]:81`,
      ],
    );
    assert.equal(ask('outside', 'tcp', HOST.ipv4, 8443), `one ${OUTSIDE.ipv4}`);
    assert.not.match(ask('outside', 'tcp', HOST.other, 8443), /one/);
    assert.equal(ask('outside', 'tcp', HOST.other, 8080), `one ${OUTSIDE.ipv4}`);
    assert.equal(ask('outside', 'tcp', HOST.ipv6, 8443), `one ${OUTSIDE.ipv6}`);
  });

  s.test('snat off: no marks, source kept everywhere; masqAll: no source is kept', () => {
    sh('sysctl -qw net.ipv4.conf.br0.route_localnet=0');
    add(s.c1, [tcp(9002)], { snat: false });
    assert.not.match(saved('nat'), /SETMARK|MASQ/);
    assert.is(ask('outside', 'tcp', HOST.ipv4, 9002), `one ${OUTSIDE.ipv4}`);
    assert.is(sh('sysctl -n net.ipv4.conf.br0.route_localnet').trim(), '0');
    call('CHECK', s.c1, [tcp(9002)], { snat: false });
    add(s.c1, [tcp(9002)], { masqAll: true });
    assert.equal(chainOf(CHAIN), [
      `-A ${CHAIN} -p tcp -m tcp --dport 9002 -j CNI-HOSTPORT-SETMARK`,
      `-A ${CHAIN} -p tcp -m tcp --dport 9002 -j DNAT --to-destination 10.88.0.11:80`,
    ]);
    assert.is(ask('outside', 'tcp', HOST.ipv4, 9002), 'one 10.88.0.1');
    assert.is(ask('outside', 'tcp', HOST.ipv6, 9002), 'one fd00:88::1');
  });

  s.test('another mark bit, or another program’s chain that marks', () => {
    add(s.c1, [tcp(9002)], { markMasqBit: 31 });
    const text = saved('nat');
    assert.match(text, /-A CNI-HOSTPORT-SETMARK .* --set-xmark 0x80000000\/0x80000000\n/);
    assert.match(text, /-A CNI-HOSTPORT-MASQ -m mark --mark 0x80000000\/0x80000000 -j MASQUERADE\n/);
    assert.is(ask('', 'tcp', '127.0.0.1', 9002), 'one 10.88.0.1');
    clear('nat');
    const external = { externalSetMarkChain: 'KUBE-MARK-MASQ' };
    const error = bad('portmap', 'ADD', s.c1, config(s.c1, [tcp(9002)], external));
    assert.is(error.code, 7);
    assert.match(error.msg, /"externalSetMarkChain": table nat \(ipv4\) has no chain "KUBE-MARK-MASQ"/);
    assert.equal(rules('nat'), []);
    for (const family of ['iptables', 'ip6tables']) run(family, '-t', 'nat', '-N', 'KUBE-MARK-MASQ');
    add(s.c1, [tcp(9002)], external);
    assert.match(saved('nat'), /-s 10\.88\.0\.0\/16 -p tcp -m tcp --dport 9002 -j KUBE-MARK-MASQ\n/);
    assert.not.match(saved('nat'), /HOSTPORT-SETMARK|HOSTPORT-MASQ/);
  });

  s.test('conditions narrow down one network and no other', () => {
    add(s.c1, [tcp(9002)], { conditionsV4: ['!', '--src', OUTSIDE.ipv4], conditionsV6: ['-s', 'fd00::/8'] });
    assert.match(
      saved('nat'),
      /-A CNI-HOSTPORT-DNAT ! -s 192\.0\.2\.2\/32 -p tcp -m comment --comment "[^\n]*" -m multiport --dports 9002 -j/,
    );
    add(s.c2, [tcp(9003)], { name: 'net2' });
    assert.not.match(ask('outside', 'tcp', HOST.ipv4, 9002), /one/);
    assert.not.match(ask('outside', 'tcp', HOST.ipv6, 9002), /one/);
    assert.match(ask('', 'tcp', HOST.ipv4, 9002), /^one /);
    assert.is(ask('outside', 'tcp', HOST.ipv4, 9003), `two ${OUTSIDE.ipv4}`);
    commits();
    const unknown = { conditionsV4: ['-m', 'length', '--length', '0:2000', '-s', '192.0.2.0/24,10.0.0.0/8'] };
    for (const expected of [['iptables', 'ip6tables'], []]) {
      add(s.c1, [tcp(9002)], unknown);
      assert.equal(commits(), expected, 'a match that is not known is found again as it was written');
    }
    assert.is(chainOf('CNI-HOSTPORT-DNAT').filter((line) => line.includes('--length 0:2000')).length, 2);
    call('CHECK', s.c1, [tcp(9002)], unknown);
    assert.is(ask('outside', 'tcp', HOST.ipv4, 9002), `one ${OUTSIDE.ipv4}`);
  });

  s.test('runs of ports, shifted or not', () => {
    add(s.c1, [
      { hostPort: 18000, containerPort: 80, protocol: 'tcp', range: 3 },
      { hostPort: 80, containerPort: 80, protocol: 'udp', range: 3 },
    ]);
    assert.match(saved('nat'), /--dport 18000:18002 -j DNAT --to-destination 10\.88\.0\.11:80-82\/18000\n/);
    assert.match(saved('nat'), /-p udp -m udp --dport 80:82 -j DNAT --to-destination 10\.88\.0\.11\n/);
    for (const [at, port] of [18000, 18001, 18002].entries()) {
      assert.match(ask('outside', 'tcp', HOST.ipv4, port), /^one/, `port ${port}`);
      assert.match(ask('outside', 'tcp', HOST.ipv6, port), /^one/, `port ${port}`);
      assert.match(ask('outside', 'udp', HOST.ipv4, 80 + at), /^one/);
    }
    assert.not.match(ask('outside', 'tcp', HOST.ipv4, 18003), /one/);
    call('CHECK', s.c1, [
      { hostPort: 18000, containerPort: 80, protocol: 'tcp', range: 3 },
      { hostPort: 80, containerPort: 80, protocol: 'udp', range: 3 },
    ]);
  });

  s.test('fifteen ports a rule, a run counting as two', () => {
    const many = Array.from({ length: 20 }, (_, at) => tcp(20000 + 2 * at));
    add(s.c1, [...many.slice(0, 14), { ...tcp(21000), range: 5 }, ...many.slice(14)]);
    const entries = chainOf('CNI-HOSTPORT-DNAT').map((line) => /--dports (\S+)/.exec(line)?.[1]?.split(','));
    assert.equal(
      entries.map((ports) => ports?.length),
      [14, 7],
    );
    assert.is(entries[1]?.[0], '21000:21004');
  });

  s.test('sctp has rules of its own', () => {
    add(s.c1, [{ hostPort: 9002, containerPort: 80, protocol: 'SCTP' }]);
    assert.match(saved('nat'), /-A CNI-HOSTPORT-DNAT -p sctp .* --dports 9002 -j/);
    assert.match(saved('nat'), /-p sctp -m sctp --dport 9002 -j DNAT --to-destination 10\.88\.0\.11:80\n/);
  });

  s.test.run();
}

/** What plugins/portmap of Debian's containernetworking-plugins 1.1.1 left, chain names aside. */
function goldenOf(): string {
  const own = ['tcp', 'udp'].flatMap((protocol) => {
    const port = `-p ${protocol} -m ${protocol} --dport 9002`;
    return [
      `-A ${CHAIN} -s 10.88.0.0/16 ${port} -j CNI-HOSTPORT-SETMARK`,
      `-A ${CHAIN} -s 127.0.0.1/32 ${port} -j CNI-HOSTPORT-SETMARK`,
      `-A ${CHAIN} ${port} -j DNAT --to-destination 10.88.0.11:80`,
    ];
  });
  const comment = '-m comment --comment "dnat name: \\"net1\\" id: \\"c1\\""';
  return [
    '*nat',
    ':PREROUTING ACCEPT',
    ':INPUT ACCEPT',
    ':OUTPUT ACCEPT',
    ':POSTROUTING ACCEPT',
    `:${CHAIN} -`,
    ':CNI-HOSTPORT-DNAT -',
    ':CNI-HOSTPORT-MASQ -',
    ':CNI-HOSTPORT-SETMARK -',
    '-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT',
    '-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT',
    '-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ',
    ...own,
    `-A CNI-HOSTPORT-DNAT -p tcp ${comment} -m multiport --dports 9002 -j ${CHAIN}`,
    `-A CNI-HOSTPORT-DNAT -p udp ${comment} -m multiport --dports 9002 -j ${CHAIN}`,
    '-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE',
    '-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000',
    'COMMIT',
  ].join('\n');
}
