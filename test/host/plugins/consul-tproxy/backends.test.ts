/** The backends on a real kernel, with plans that no job can ask for. */
import * as assert from 'uvu/assert';
import type { Backend } from '../../../../plugins/consul-tproxy/backend.ts';
import { iptablesBackend } from '../../../../plugins/consul-tproxy/iptables/backend.ts';
import { nftablesBackend } from '../../../../plugins/consul-tproxy/nftables/backend.ts';
import { differences } from '../../../../plugins/consul-tproxy/differences.ts';
import { jumping, planRules, type TablePlan } from '../../../../plugins/consul-tproxy/plan.ts';
import { DEFAULT_OPTIONS, type TproxyOptions } from '../../../../plugins/consul-tproxy/config.ts';
import type { ProxyRequest } from '../../../../plugins/consul-tproxy/request.ts';
import { inScratchNamespace } from '../../../../shared/kernel/namespace.ts';
import { randomBelow } from '../../../support/random.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('consul-tproxy: backends', { limit: 90 });

const warn = (line: string): void => assert.unreachable(line);
const MAKERS: Readonly<Record<string, () => Backend>> = {
  'iptables-nft': () => iptablesBackend({ commandPrefix: () => [], warn, variant: 'nft' }),
  'iptables-legacy': () => iptablesBackend({ commandPrefix: () => [], warn, variant: 'legacy' }),
  nftables: nftablesBackend,
};

const REQUEST: ProxyRequest = {
  proxyUid: { first: 101, last: 101 },
  inboundPort: 20000,
  outboundPort: 15001,
  dns: { address: { family: 'ipv4', text: '192.0.2.53' }, port: 8600 },
  excludeInboundPorts: [],
  excludeOutboundPorts: [],
  excludeOutboundCidrs: { ipv4: [], ipv6: [] },
  excludeUids: [],
};
const PLAN = planRules(REQUEST, DEFAULT_OPTIONS);

for (const [name, make] of Object.entries(MAKERS)) {
  test(`${name}: whatever is planned is read back as it was, and a second time nothing is written`, () => {
    const rounds = name === 'nftables' ? 60 : 8;
    inScratchNamespace(() => {
      const backend = make();
      for (let round = 1; round <= rounds; round++) {
        const plan = randomPlan(round);
        backend.add(plan);
        assert.equal(differences(plan, backend.read()), [], `round ${round}`);
        assert.is(backend.add(plan), false, 'the rules were there');
        assert.ok(backend.present());
        assert.match(backend.listing(), /CONSUL_PROXY_OUTPUT/);
      }
      backend.remove();
      backend.remove();
      assert.not.ok(backend.present());
      assert.is(backend.listing(), '');
    });
  });

  for (const position of [0, 1] as const) {
    test(`${name}: a rule that the kernel refuses, in ${position === 0 ? 'the first' : 'the last'} table, leaves nothing`, () => {
      inScratchNamespace(() => {
        const backend = make();
        assert.throws(() => backend.add(spoiled(PLAN, position)));
        assert.not.ok(backend.present());
        assert.equal(
          backend
            .read()
            .flatMap(({ chains }) => [...chains.keys()].filter((chain) => chain.startsWith('CONSUL'))),
          [],
        );
        assert.is(backend.add(PLAN), true);
      });
    });

    test(`${name}: a rule that the kernel refuses, over existing rules, leaves those in force`, () => {
      inScratchNamespace(() => {
        const backend = make();
        backend.add(PLAN);
        assert.throws(() => backend.add(spoiled(PLAN, position)));
        assert.equal(differences(PLAN, backend.read()), []);
      });
    });
  }

  test(`${name}: differences are found, whichever chain they are in`, () => {
    inScratchNamespace(() => {
      const backend = make();
      backend.add(PLAN);
      const others: [ProxyRequest, Partial<TproxyOptions>, RegExp][] = [
        [
          { ...REQUEST, inboundPort: 20001 },
          {},
          /CONSUL_PROXY_IN_REDIRECT \(ipv4 nat\): missing .*20001; not planned .*20000/,
        ],
        [{ ...REQUEST, dns: undefined }, {}, /OUTPUT \(ipv4 nat\): not planned .*CONSUL_DNS_REDIRECT/],
        [REQUEST, { ipv6: 'bypass' }, /CONSUL_PROXY_REJECT_IN \(ipv6 filter\): the chain is not planned/],
        [REQUEST, { ipv6: 'redirect' }, /CONSUL_PROXY_OUTPUT \(ipv6 nat\): the chain is missing/],
        [
          REQUEST,
          { exemptions: 'consul' },
          /CONSUL_PROXY_OUTPUT \(ipv4 nat\): not planned -d 127\.0\.0\.0\/8/,
        ],
      ];
      for (const [request, options, wanted] of others) {
        const found = differences(planRules(request, { ...DEFAULT_OPTIONS, ...options }), backend.read());
        assert.match(found.map(({ text }) => text).join('\n'), wanted);
      }
    });
  });
}

test.run();

/** One rule more, in the middle of a chain, that jumps to a chain that does not exist. */
function spoiled(plan: readonly TablePlan[], position: 0 | 1): TablePlan[] {
  const bad = jumping('CONSUL_NO_SUCH_CHAIN');
  return plan.map((table, at) => {
    if (at !== (position === 0 ? 0 : plan.length - 1)) return table;
    const [first, ...rest] = table.chains;
    assert.ok(first);
    const [head, ...tail] = first.rules;
    return {
      ...table,
      chains: [{ ...first, rules: [...(head === undefined ? [] : [head]), bad, ...tail] }, ...rest],
    };
  });
}

/** Any request with any options; the same for the same seed. */
function randomPlan(seed: number): readonly TablePlan[] {
  const below = randomBelow(seed);
  const pick = <T>(...choices: readonly T[]): T => choices[below(choices.length)] as T;
  const many = <T>(make: () => T): T[] => Array.from({ length: below(4) }, make);
  const range = (top: number): { first: number; last: number } => {
    const first = 1 + below(top - 1);
    return { first, last: pick(first, first + below(top - first)) };
  };
  const octets = (): string => [1 + below(222), below(256), below(256)].join('.');
  const request: ProxyRequest = {
    proxyUid: range(4294967294),
    inboundPort: 1 + below(65535),
    outboundPort: 1 + below(65535),
    dns: pick(
      undefined,
      { address: { family: 'ipv4' as const, text: `${octets()}.1` }, port: pick(0, 1 + below(65535)) },
      {
        address: { family: 'ipv6' as const, text: `fd00:${below(65535).toString(16)}::53` },
        port: 1 + below(65535),
      },
      { address: undefined, port: 8600 },
    ),
    excludeInboundPorts: distinct(many(() => range(65535))),
    excludeOutboundPorts: distinct(many(() => range(65535))),
    excludeOutboundCidrs: {
      ipv4: [
        ...new Set(
          many(() =>
            pick(`${octets()}.0/24`, `${octets()}.128/25`, `${octets()}.7/32`, '0.0.0.0/0', '128.0.0.0/1'),
          ),
        ),
      ],
      ipv6: [
        ...new Set(
          many(() =>
            pick('fd00::/8', '::/0', '2001:db8::/33', 'fc00::/7', `2001:db8::${below(9999) + 1}/128`),
          ),
        ),
      ],
    },
    excludeUids: distinct(many(() => range(4294967294))),
  };
  return planRules(request, {
    exemptions: pick('full', 'consul'),
    ipv6: pick('reject', 'redirect', 'bypass'),
    udp: pick('bypass', 'reject'),
    dnsCapture: pick('consul', 'all'),
    check: 'structure',
    backend: undefined,
  });
}

function distinct<T extends { first: number; last: number }>(ranges: readonly T[]): T[] {
  return [...new Map(ranges.map((range) => [`${range.first}-${range.last}`, range])).values()];
}
