import * as assert from 'uvu/assert';
import { parseNetworkList } from '../../../../conflist/network-list.ts';
import { writeCachedResult } from '../../../../conflist/result-cache.ts';
import { parseResult } from '../../../../shared/cni/results.ts';
import { bad, good, HOST } from '../../../support/port-host.ts';
import { add, call, CHAIN, config, node, scene, tcp, type Filter } from '../../../support/portmap-scene.ts';
import { run } from '../../../support/variants.ts';

/** CHECK of a container whose network's configuration was edited after its ADD, and of one whose rules were damaged. */
export function changedSettingsCases(filter: Filter): void {
  const s = scene('CHECK after the configuration was changed', filter);
  const onNftables = filter === 'nftables';
  const conditions = onNftables
    ? { conditionsV4: ['ip', 'saddr', '!=', '192.0.2.9'], conditionsV6: ['ip6', 'saddr', '!=', 'fd00::9'] }
    : { conditionsV4: ['!', '-s', '192.0.2.9'], conditionsV6: ['!', '-s', 'fd00::9'] };
  const changes: [string, object, object, string[]][] = [
    ['snat switched off', {}, { snat: false }, ['snat']],
    ['snat switched on', { snat: false }, {}, ['snat']],
    ['masqAll switched on', {}, { masqAll: true }, ['masqAll']],
    ['masqAll switched off', { masqAll: true }, {}, ['masqAll']],
    ['another mark bit', {}, { markMasqBit: 7 }, ['markMasqBit']],
    ['conditions added', {}, conditions, ['conditionsV4', 'conditionsV6']],
    ['conditions removed', conditions, {}, ['conditionsV4', 'conditionsV6']],
    ['portConflict', {}, { portConflict: 'reference' }, []],
    ...(onNftables
      ? []
      : ([
          ['another chain that marks', {}, { externalSetMarkChain: 'OTHER-MARK' }, ['externalSetMarkChain']],
        ] as [string, object, object, string[]][])),
  ];
  const mappings = [tcp(9002), { ...tcp(9003), hostIP: HOST.ipv4 }, { ...tcp(9100), range: 3 }];

  for (const [title, before, after, keys] of changes) {
    s.test(`${title}: a warning that names the key; a lost rule still fails`, () => {
      if (!onNftables)
        for (const family of ['iptables', 'ip6tables']) run(family, '-t', 'nat', '-N', 'OTHER-MARK');
      add(s.c1, mappings, before);
      const ruleset = s.ruleset();
      const { log } = call('CHECK', s.c1, mappings, after);
      const named = [...log.matchAll(/added with a different "(\w+)"/g)].map(([, key]) => key);
      assert.equal(named.toSorted(), keys, log);
      assert.is(s.ruleset(), ruleset, 'CHECK changes nothing');
      damage(9002);
      assert.match(
        bad('portmap', 'CHECK', s.c1, config(s.c1, mappings, after)).msg,
        /^port mappings are incomplete: .*9002/,
      );
    });
  }

  s.test('a container of which a mark rule was lost fails, whatever the configuration says now', () => {
    for (const after of [{}, { snat: false }, { masqAll: true }, { markMasqBit: 3 }]) {
      add(s.c1, [tcp(9002)]);
      call('CHECK', s.c1, [tcp(9002)], after);
      loseMark();
      assert.is(
        bad('portmap', 'CHECK', s.c1, config(s.c1, [tcp(9002)], after)).code,
        999,
        JSON.stringify(after),
      );
      good('portmap', 'DEL', s.c1, config(undefined, undefined));
    }
  });

  s.test('the only mark rule of IPv6 is lost: fails, also if snat is switched off now', () => {
    for (const after of [{}, { snat: false }]) {
      add(s.c1, [tcp(9002)]);
      loseMarks('ipv6');
      assert.match(
        bad('portmap', 'CHECK', s.c1, config(s.c1, [tcp(9002)], after)).msg,
        /rules that mark packets for masquerading are missing \(ipv6\)/,
      );
      add(s.c1, [tcp(9002)]);
      call('CHECK', s.c1, [tcp(9002)]);
    }
  });

  s.test(
    'no mark rule in either family: damage if the cached configuration of ADD has snat, else a warning',
    () => {
      add(s.c1, [tcp(9002)], { masqAll: true });
      for (const family of ['ipv4', 'ipv6'] as const) loseMarks(family);
      assert.match(call('CHECK', s.c1, [tcp(9002)]).log, /added with a different "snat"/);
      cacheResult({ snat: false });
      assert.match(call('CHECK', s.c1, [tcp(9002)]).log, /added with a different "snat"/);
      cacheResult({ masqAll: true });
      for (const after of [{}, { snat: false }])
        assert.match(
          bad('portmap', 'CHECK', s.c1, config(s.c1, [tcp(9002)], after)).msg,
          /rules that mark packets for masquerading are missing \(ipv4\)/,
        );
    },
  );

  s.test(
    'the masquerade rule of the bit that was set up is lost: fails, whatever bit is configured now',
    () => {
      for (const after of [{}, { markMasqBit: 3 }]) {
        add(s.c1, [tcp(9002)]);
        if (onNftables) run('nft', 'flush chain ip weft_hostports postrouting');
        else run('iptables', '-t', 'nat', '-F', 'CNI-HOSTPORT-MASQ');
        assert.match(bad('portmap', 'CHECK', s.c1, config(s.c1, [tcp(9002)], after)).msg, /masquerade|MASQ/i);
      }
    },
  );

  s.test('the node moved to another back end: a warning that names "backend"', () => {
    add(s.c1, mappings);
    node({ backend: onNftables ? 'iptables' : 'nftables' });
    assert.match(call('CHECK', s.c1, mappings).log, /added with a different "backend"/);
    node(undefined);
  });

  /** Removes the DNAT rules of one port, in IPv4. */
  function damage(port: number): void {
    if (onNftables) {
      const listed = run('nft', '-a', 'list', 'chain', 'ip', 'weft_hostports', CHAIN);
      const handle = new RegExp(`dport ${port} .*dnat to.*# handle (\\d+)`).exec(listed)?.[1] ?? '';
      run('nft', `delete rule ip weft_hostports ${CHAIN} handle ${handle}`);
    } else {
      run(
        'iptables',
        '-t',
        'nat',
        '-D',
        CHAIN,
        '-p',
        'tcp',
        '-m',
        'tcp',
        '--dport',
        String(port),
        '-j',
        'DNAT',
        '--to-destination',
        `${s.c1.ipv4}:80`,
      );
    }
  }

  /** Removes every rule that marks packets, of a container with one mapping. */
  function loseMarks(family: 'ipv4' | 'ipv6'): void {
    const table = family === 'ipv4' ? 'ip' : 'ip6';
    if (onNftables) {
      const listed = run('nft', '-a', 'list', 'chain', table, 'weft_hostports', CHAIN);
      for (const [, handle = ''] of listed.matchAll(/mark set .*# handle (\d+)/g))
        run('nft', `delete rule ${table} weft_hostports ${CHAIN} handle ${handle}`);
    } else {
      for (const line of run(`${table}tables`, '-t', 'nat', '-S', CHAIN).split('\n'))
        if (line.endsWith('SETMARK'))
          run(`${table}tables`, '-t', 'nat', ...line.replace('-A', '-D').split(' '));
    }
  }

  /** As libcni caches the last ADD, whose configuration had these keys. */
  function cacheResult(more: object): void {
    const plugins = [{ type: 'portmap', capabilities: { portMappings: true }, ...more }];
    const list = parseNetworkList(JSON.stringify({ cniVersion: '1.0.0', name: 'net1', plugins }), 'net1');
    const attachment = {
      containerId: s.c1.id,
      netns: s.c1.netns,
      ifname: 'eth0',
      args: [],
      capabilityArgs: {},
    };
    writeCachedResult('/var/lib/cni', list, attachment, parseResult('1.0.0', s.c1.prevResult));
  }

  /** Removes the rule that marks packets from 127.0.0.1. */
  function loseMark(): void {
    if (onNftables) {
      const listed = run('nft', '-a', 'list', 'chain', 'ip', 'weft_hostports', CHAIN);
      const handle = /saddr 127\.0\.0\.1 .*# handle (\d+)/.exec(listed)?.[1] ?? '';
      run('nft', `delete rule ip weft_hostports ${CHAIN} handle ${handle}`);
    } else {
      run(
        'iptables',
        '-t',
        'nat',
        '-D',
        CHAIN,
        '-s',
        '127.0.0.1/32',
        '-p',
        'tcp',
        '-m',
        'tcp',
        '--dport',
        '9002',
        '-j',
        'CNI-HOSTPORT-SETMARK',
      );
    }
  }

  s.test.run();
}
