import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { startPluginProcess, variables } from '../../../support/plugin.ts';
import { masqueradeChange } from '../../../../plugins/bridge/iptables/masquerade.ts';
import { chooseDriver } from '../../../../shared/packetfilter/select.ts';
import {
  clear,
  removePrograms,
  rules,
  run,
  saved,
  sh,
  wordsOf,
  type Variant,
} from '../../../support/variants.ts';
import { accepts, add, ADMIN, call, chainOf, config, keep, lease, notes, own, scene } from './scene.ts';
import {
  bad,
  commits,
  good,
  makeContainer,
  removeContainer,
  resultOf,
  useHostVariant,
  type Container,
} from '../../../support/port-host.ts';

/** The firewall executable on a real kernel with real traffic; the same for both variants of iptables. */
export function cleanupCases(variant: Variant): void {
  const s = scene('CHECK, DEL, GC, many at once, hosts without ip6tables', variant);

  s.test('CHECK names each rule that is missing, and makes nothing', () => {
    const policed = { ingressPolicy: 'isolated' };
    add(s.c1, policed);
    const lines = rules('filter').filter((line) => line.startsWith('-A '));
    assert.is(lines.length, 4 + 1 + 3 + 2);
    for (const line of lines) {
      run('iptables', ...wordsOf(line.replace('-A ', '-D ')));
      const before = saved('filter');
      const error = bad('firewall', 'CHECK', s.c1, config(s.c1, policed));
      const [, chain, rest] = /^-A (\S+) (.*)$/.exec(line) ?? [];
      assert.is(
        error.msg,
        `firewall rules are not complete: rule is missing from chain ${chain} of table filter (ipv4): ${rest}`,
      );
      assert.is(saved('filter'), before);
      add(s.c1, policed);
      call('CHECK', s.c1, policed);
    }
    clear('filter');
    commits();
    assert.match(bad('firewall', 'CHECK', s.c1, config(s.c1)).msg, /chain CNI-FORWARD is missing/);
    assert.equal(rules('filter'), [], 'CHECK makes no chains');
    assert.equal(commits(), []);
  });

  s.test('CHECK is content with rules in another place', () => {
    add(s.c1);
    sh('iptables -I FORWARD 1 -p esp -j ACCEPT');
    sh('iptables -I CNI-FORWARD 1 -p esp -j ACCEPT');
    call('CHECK', s.c1);
  });

  s.test('DEL without prevResult finds the address where the host still has it', () => {
    const del = (attachment: Partial<Container>, more: object = {}): void =>
      void good('firewall', 'DEL', { ...s.c1, ...attachment }, config(undefined, more));
    const gone = (how: string): void => {
      assert.equal(
        [...accepts(), ...accepts('ipv6')],
        [...own('10.88.0.12/32'), ...own('fd00:88::12/128')],
        how,
      );
    };
    add(s.c2);
    add(s.c1);
    del({});
    gone('from the namespace');

    add(s.c1);
    lease('net1', '10.88.0.11', 'c1\r\neth0');
    lease('net1', 'fd00:88::11', 'c1');
    lease('net1', '10.88.0.12', 'c2\r\neth0');
    del({ netns: '' });
    gone('from the leases');

    rmSync('/var/lib/cni', { recursive: true });
    add(s.c1);
    keep('net1', 'c1', ['10.88.0.11/16', 'fd00:88::11/64']);
    del({ netns: '/run/netns/never' });
    gone('from what the runtime kept');

    rmSync('/var/lib/cni', { recursive: true });
    add(s.c1);
    const addresses = ['10.88.0.11/16', 'fd00:88::11/64'];
    chooseDriver().apply(masqueradeChange({ network: 'net1', containerId: 'c1', addresses }));
    del({ netns: '' });
    gone('from its masquerading');

    clear('nat');
    del({ netns: '' });
    gone('nothing to be found is no error');
    del({ netns: '' }, { ingressPolicy: 'foo', backend: 'firewalld', iptablesAdminChainName: 7 });
  });

  s.test('DEL leaves the rules of the container that has the address now', () => {
    add(s.c1);
    lease('net1', '10.88.0.11', 'next\r\neth0');
    call('DEL', s.c1);
    assert.equal(accepts(), own('10.88.0.11/32'));
    assert.equal(accepts('ipv6'), []);
  });

  const ISOLATED = { ingressPolicy: 'isolated' };
  const SAME_BRIDGE = { ingressPolicy: 'same-bridge' };

  s.test('CHECK after the configuration changed since ADD: a warning that names the key', () => {
    const rows: [key: string, added: object, now: object][] = [
      ['iptablesAdminChainName', {}, { iptablesAdminChainName: 'OTHER' }],
      ['iptablesAdminChainName', { iptablesAdminChainName: '' }, {}],
      ['ingressPolicy', {}, SAME_BRIDGE],
      ['ingressPolicy', {}, ISOLATED],
      ['ingressPolicy', SAME_BRIDGE, ISOLATED],
      ['ingressPolicy', ISOLATED, SAME_BRIDGE],
      ['backend', {}, { backend: 'nftables' }],
    ];
    for (const [key, added, now] of rows) {
      clear('filter');
      add(s.c1, added);
      commits();
      const log = call('CHECK', s.c1, now);
      assert.match(log, `"${key}"`);
      assert.is(log.trim().split('\n').length, 1, log);
      assert.equal(commits(), []);
    }
    clear('filter');
    add(s.c1, ISOLATED);
    assert.is(call('CHECK', s.c1), '', 'a bridge keeps its policy for the other networks on it');
  });

  s.test('CHECK after the configuration changed, and a rule is damaged: fails', () => {
    const rows: [added: object, now: object, damage: string, message: RegExp][] = [
      [{}, { iptablesAdminChainName: 'OTHER' }, '-D CNI-FORWARD -s 10.88.0.11 -j ACCEPT', /missing/],
      [{}, { iptablesAdminChainName: 'OTHER' }, '-D CNI-FORWARD 1', /chain OTHER is missing/],
      [{}, ISOLATED, '-F FORWARD', /missing from chain FORWARD/],
      [SAME_BRIDGE, ISOLATED, '-F CNI-ISOLATION-STAGE-1', /missing/],
      [ISOLATED, SAME_BRIDGE, '-F CNI-ISOLATION-STAGE-2', /missing/],
      [{}, { backend: 'nftables' }, '-F CNI-FORWARD', /table inet weft_firewall is missing/],
    ];
    for (const [added, now, damage, message] of rows) {
      clear('filter');
      add(s.c1, added);
      run('iptables', ...damage.split(' '));
      assert.match(bad('firewall', 'CHECK', s.c1, config(s.c1, now)).msg, message, damage);
    }
  });

  s.test(
    'the host’s iptables was switched to the other variant after ADD: CHECK passes, DEL and GC clean up',
    () => {
      const other = variant === 'nft' ? 'legacy' : 'nft';
      for (const [command, more] of [
        ['DEL', config(undefined)],
        ['GC', config(undefined, { 'cni.dev/valid-attachments': [] })],
      ] as const) {
        add(s.c1);
        lease('net1', s.c1.ipv4, 'c1\r\neth0');
        lease('net1', s.c1.ipv6, 'c1\r\neth0');
        try {
          useHostVariant(other);
          assert.is(call('CHECK', s.c1), '');
          good('firewall', command, s.c1, more);
        } finally {
          useHostVariant(variant);
        }
        assert.equal([...accepts(), ...accepts('ipv6')], [], command);
        rmSync('/var/lib/cni', { recursive: true, force: true });
      }
    },
  );

  s.test('a late DEL leaves the rules of the container that Nomad leased the address to', () => {
    mkdirSync('/var/run/cni/nomad', { recursive: true });
    writeFileSync('/var/run/cni/nomad/10.88.0.11', 'next\r\neth0');
    add(s.c1, { name: 'nomad' });
    call('DEL', s.c1, { name: 'nomad' });
    assert.equal(accepts(), own('10.88.0.11/32'));
    assert.equal(accepts('ipv6'), []);
    rmSync('/var/run/cni', { recursive: true });
  });

  s.test(
    'a late DEL leaves the rules of the running container that has the address, without any lease',
    () => {
      add(s.c1);
      good('firewall', 'DEL', { ...s.c1, id: 'late', netns: '' }, config(s.c1));
      assert.equal(accepts(), own('10.88.0.11/32'));
      good('firewall', 'DEL', { ...s.c1, id: 'late', netns: '' }, config(undefined));
      assert.equal(accepts(), own('10.88.0.11/32'));
      call('DEL', s.c1);
      assert.equal(accepts(), []);
    },
  );

  s.test('DEL with the path of another container’s namespace leaves that container’s rules', () => {
    add(s.c2);
    sh('ip link set v-c2 alias weft:net1/c2/eth0');
    try {
      good('firewall', 'DEL', { ...s.c2, id: 'gone' }, config(undefined));
    } finally {
      sh('ip link set v-c2 alias ""');
    }
    assert.equal(accepts(), own('10.88.0.12/32'));
  });

  s.test('DEL with the result of another container removes this container’s rules and no others', () => {
    add(s.c1);
    add(s.c2);
    lease('net1', '10.88.0.11', 'c1\r\neth0');
    lease('net1', '10.88.0.12', 'c2\r\neth0');
    good('firewall', 'DEL', { ...s.c1, netns: '' }, config(s.c2));
    assert.equal(accepts(), own('10.88.0.12/32'));
  });

  s.test('DEL with a namespace path that is a file, a folder or another kind of namespace', () => {
    writeFileSync('/run/no-namespace', '');
    for (const netns of ['/run/no-namespace', '/run', '/proc/self/ns/mnt', '/run/missing']) {
      add(s.c1);
      lease('net1', s.c1.ipv4, 'c1\r\neth0');
      lease('net1', s.c1.ipv6, 'c1\r\neth0');
      good('firewall', 'DEL', { ...s.c1, netns }, config(undefined));
      assert.equal([...accepts(), ...accepts('ipv6')], [], netns);
    }
  });

  s.test('ADD again with another address, after a lost lease: the rules of the old address go', () => {
    add(s.c1);
    keep('net1', 'c1', ['10.88.0.11/16', 'fd00:88::11/64']);
    const prevResult = resultOf(s.c1.netns, ['10.88.0.31/16', 'fd00:88::11/64']);
    good('firewall', 'ADD', s.c1, config(undefined, { prevResult }));
    assert.equal(accepts(), own('10.88.0.31/32'));
    assert.equal(accepts('ipv6'), own('fd00:88::11/128'));
  });

  s.test('GC finds the leases of Nomad’s networks', () => {
    mkdirSync('/var/run/cni/nomad', { recursive: true });
    writeFileSync('/var/run/cni/nomad/10.88.0.11', 'c1\r\neth0');
    add(s.c1, { name: 'nomad' });
    good('firewall', 'GC', s.c1, {
      ...config(undefined, { name: 'nomad' }),
      'cni.dev/valid-attachments': [],
    });
    assert.equal(accepts(), []);
    rmSync('/var/run/cni', { recursive: true });
  });

  // far and other are on a network without leases; other is of another network.
  for (const [suite, keptIpv4, keptIpv6] of [
    ['this suite', ['10.88.0.12/32', '10.99.0.71/32'], ['fd00:88::12/128', 'fd00:99::71/128']],
    [
      'the reference',
      ['10.88.0.12/32', '10.99.0.13/32', '10.99.0.71/32'],
      ['fd00:88::11/128', 'fd00:88::12/128', 'fd00:99::13/128', 'fd00:99::71/128'],
    ],
  ] as const)
    s.test(`GC removes rules that ${suite} made for containers that are not valid`, () => {
      const gone = makeContainer('gone', 70);
      const other = makeContainer('other', 71, 'br1', 99);
      for (const container of [s.c1, s.c2, gone, s.far]) add(container);
      add(other, { name: 'net2' });
      removeContainer(gone);
      removeContainer(other);
      // Only leases and routes tell whose the reference's rules are.
      if (suite === 'the reference') notes().forEach((note) => rmSync(note));
      lease('net1', '10.88.0.11', 'c1\r\neth0');
      lease('net1', '10.88.0.12', 'c2\r\neth0');
      lease('net1', 'fd00:88::12', 'c2\r\neth0');
      good('firewall', 'GC', s.c1, {
        ...config(undefined),
        'cni.dev/valid-attachments': [{ containerID: 'c2', ifname: 'eth0' }],
      });
      assert.equal(accepts(), keptIpv4.flatMap(own));
      assert.equal(accepts('ipv6'), keptIpv6.flatMap(own));
    });

  s.test('a DEL with nothing but what ADD noted, while another container has one of its addresses', () => {
    const gone = makeContainer('gone', 70);
    add(gone);
    add(s.c2);
    removeContainer(gone);
    // The next owner of the IPv4 address.
    lease('net1', '10.88.0.70', 'c2\r\neth0');
    good('firewall', 'DEL', { ...gone, netns: '' }, config(undefined));
    assert.equal(accepts(), [...own('10.88.0.70/32'), ...own('10.88.0.12/32')]);
    assert.equal(accepts('ipv6'), own('fd00:88::12/128'));
    assert.is(notes().length, 1, 'of c2');
  });

  s.test('twelve containers at once on a fresh host', async () => {
    const starts = Array.from({ length: 12 }, (_, at) =>
      startPluginProcess('firewall', {
        command: 'ADD',
        patience: 80_000,
        env: variables({ id: `p${at}`, netns: s.c1.netns }),
        stdin: config(undefined, {
          ingressPolicy: 'same-bridge',
          prevResult: resultOf(s.c1.netns, [`10.88.1.${at}/16`, `fd00:88::1:${at}/64`]),
        }),
      }),
    );
    const failed = (await Promise.all(starts)).filter(({ exitCode }) => exitCode !== 0);
    assert.equal(failed, []);
    for (const family of ['ipv4', 'ipv6'] as const) {
      const lines = rules('filter', family);
      assert.is(new Set(lines).size, lines.length, 'no rule twice');
      assert.is(accepts(family).length, 24);
      assert.is(chainOf('FORWARD', family).length, 2);
      assert.match(chainOf('FORWARD', family)[0] ?? '', /CNI-ISOLATION-STAGE-1/);
      assert.is(chainOf('CNI-FORWARD', family)[0], ADMIN);
    }
  });

  s.test('a host without ip6tables is fine for IPv4, and says what it lacks for IPv6', () => {
    removePrograms('ip6tables', 'ip6tables-save', 'ip6tables-restore');
    rmSync('/etc/alternatives/ip6tables-restore');
    const v4 = { ...s.c1, prevResult: resultOf(s.c1.netns, ['10.88.0.11/16']) };
    for (const command of ['ADD', 'CHECK', 'DEL']) good('firewall', command, v4, config(v4));
    good('firewall', 'DEL', { ...s.c1, netns: '' }, config(undefined));
    const error = bad('firewall', 'ADD', s.c1, config(s.c1));
    assert.match(error.msg, /this host has no ip6tables-restore, needed for IPv6 rules/);
    assert.equal(accepts(), [], 'IPv4 is taken back');
  });

  s.test.run();
}
