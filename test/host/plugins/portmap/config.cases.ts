import * as assert from 'uvu/assert';
import { rules } from '../../../support/variants.ts';
import { config, scene, tcp, type Filter } from '../../../support/portmap-scene.ts';
import { bad, commits, good, inside } from '../../../support/port-host.ts';

/** The portmap executable on a real kernel; the same for every packet filter. */
export function configCases(filter: Filter): void {
  const s = scene('which configurations and results it takes', filter);

  s.test('reports all problems of a configuration before anything is changed', () => {
    const wrong: [object, number, RegExp][] = [
      [config(undefined, [tcp(9002)]), 7, /must be called as chained plugin/],
      [config(undefined, []), 7, /must be called as chained plugin/],
      [
        config(s.c1, [tcp(0)]),
        7,
        /"runtimeConfig\.portMappings\[0\]\.hostPort" must be a port number from 1 to 65535, got 0/,
      ],
      [config(s.c1, [tcp(9002, -1)]), 7, /containerPort" must be a port number/],
      [config(s.c1, [tcp(70000)]), 7, /hostPort" must be a port number .* got 70000/],
      [
        config(s.c1, [{ hostPort: 1, containerPort: 1, protocol: 'icmp' }]),
        7,
        /must be tcp, udp or sctp, got "icmp"/,
      ],
      [config(s.c1, [{ hostPort: 1, containerPort: 1, protocol: '' }]), 7, /must be tcp, udp or sctp/],
      [config(s.c1, [{ ...tcp(1), hostIP: 'localhost' }]), 7, /hostIP" must be an IPv4 or IPv6 address/],
      [config(s.c1, [{ ...tcp(65530), range: 10 }]), 7, /range" must end at port 65535 or before, got 10/],
      [config(s.c1, [tcp(1, 80), tcp(1, 81)]), 7, /use the same host port: 1\/tcp to 80 and 1\/tcp to 81/],
      [
        config(s.c1, [tcp(0)], { markMasqBit: 32 }),
        7,
        /hostPort.*MasqMarkBit must be between 0 and 31|MasqMarkBit.*hostPort/,
      ],
      [
        config(s.c1, [tcp(1)], { markMasqBit: 1, externalSetMarkChain: 'X' }),
        7,
        /Cannot specify externalSetMarkChain and markMasqBit/,
      ],
      [config(s.c1, [tcp(1)], { backend: 'ipvs' }), 7, /"backend" must be one of "iptables", "nftables", ""/],
      [
        config(s.c1, [tcp(1)], { backend: 'iptables', conditionsV4: ['ip', 'saddr', '10.0.0.0/8'] }),
        7,
        /iptables backend was requested but configuration contains nftables-specific options \[conditionsV4\]/,
      ],
      [
        config(s.c1, [tcp(1)], { backend: 'nftables', conditionsV6: ['-s', 'fd00::/8'] }),
        7,
        /nftables backend was requested but configuration contains iptables-specific options \[conditionsV6\]/,
      ],
      [
        config(s.c1, [tcp(1)], { conditionsV4: ['-s', 'fd00::/8'] }),
        7,
        /must have IPv4 addresses, got fd00::\/8/,
      ],
      [
        config(s.c1, [tcp(1)], { conditionsV4: ['-s', '10.0.0.0/8', '-j', 'ACCEPT'] }),
        7,
        /"conditionsV4" must not have -j; only/,
      ],
      [config(s.c1, [tcp(1)], { conditionsV4: ['-m', 'comment\nCOMMIT'] }), 7, /control characters/],
      [config(s.c1, [tcp(1)], { externalSetMarkChain: 'X Y' }), 7, /must be a chain name/],
    ];
    for (const [body, code, message] of wrong) {
      const error = bad('portmap', 'ADD', s.c1, body);
      assert.is(error.code, code, error.msg);
      assert.match(error.msg, message);
    }
    assert.equal(rules('nat'), []);
    assert.equal(commits(), []);
  });

  s.test('uses the addresses of its own interface, and tolerates an index that leads nowhere', () => {
    const ips = [
      { interface: 0, address: '10.88.0.1/16' },
      { interface: 1, address: '10.99.0.9/16' },
      { interface: 2, address: '10.88.0.11/16' },
      { interface: 9, address: '10.77.0.1/16' },
    ];
    const prevResult = { ...s.c1.prevResult, ips };
    good('portmap', 'ADD', s.c1, config(undefined, [tcp(9002)], { prevResult }));
    assert.match(s.ruleset(), /(?:DNAT --to-destination|dnat to) 10\.88\.0\.11:80/);
    const stray = { ...s.c1.prevResult, ips: ips.slice(3) };
    good('portmap', 'ADD', s.c1, config(undefined, [tcp(9002)], { prevResult: stray }));
    assert.match(s.ruleset(), /(?:DNAT --to-destination|dnat to) 10\.77\.0\.1:80/);
  });

  s.test('an old configuration, an old result', () => {
    const prevResult = { cniVersion: '0.2.0', ip4: { ip: '10.88.0.11/16' } };
    good('portmap', 'ADD', s.c1, { ...config(undefined, [tcp(9002)], { prevResult }), cniVersion: '0.2.0' });
    assert.match(s.ruleset(), /(?:DNAT --to-destination|dnat to) 10\.88\.0\.11:80/);
    assert.is(inside('c1', 'cat /proc/sys/net/ipv4/ip_forward').trim(), '0');
  });

  s.test('no mappings: nothing is done', () => {
    // Go's runtimes send null for an empty list.
    for (const mappings of [[], undefined, null as unknown as undefined]) {
      good('portmap', 'ADD', s.c1, config(s.c1, mappings));
      good('portmap', 'CHECK', s.c1, config(s.c1, mappings));
      good('portmap', 'DEL', s.c1, config(s.c1, mappings));
    }
    assert.equal(commits(), []);
    assert.equal(rules('nat'), []);
  });

  s.test.run();
}
