/** CHECK fails only when interception is broken, because Nomad then destroys the network of a running allocation. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { copyRules, DAMAGES, harm, NFT_DAMAGES, TABLE } from '../../../support/tproxy-damages.ts';
import {
  backendNamed,
  BACKENDS,
  call,
  fails,
  leftovers,
  makeLegacyFolder,
  newNamespace,
  REQUEST,
  sh,
  succeeds,
} from '../../../support/tproxy.ts';

const test = suite('consul-tproxy: CHECK', { limit: 60 });

test.before(makeLegacyFolder);

for (const on of BACKENDS) {
  test(`${on.name}: healthy rules pass without a word, and stay as they are`, () => {
    const netns = newNamespace();
    succeeds('ADD', { netns, on });
    const before = sh(`ip netns exec ${netns} nft -a list ruleset`) + leftovers(netns);
    for (const check of ['structure', 'strict', 'off'])
      assert.equal(succeeds('CHECK', { netns, on, config: { check } }), []);
    assert.is(sh(`ip netns exec ${netns} nft -a list ruleset`) + leftovers(netns), before);
  });

  for (const damage of on.backend === 'nftables' ? [...DAMAGES, ...NFT_DAMAGES] : DAMAGES) {
    test(`${on.name}: finds ${damage.what}, names it, and passes again after the next ADD`, () => {
      const netns = newNamespace();
      succeeds('ADD', { netns, on });
      harm(netns, on, damage);
      const { code, msg, details } = fails('CHECK', { netns, on });
      assert.is(code, 999);
      assert.match(`${msg} ${details ?? ''}`, damage.says);
      assert.equal(succeeds('CHECK', { netns, on, config: { check: 'off' } }), []);
      succeeds('ADD', { netns, on });
      assert.equal(succeeds('CHECK', { netns, on, config: { check: 'strict' } }), []);
    });
  }

  test(`${on.name}: a difference from the job's configuration is a warning; strict fails`, () => {
    const drifted = {
      'DNS that is another': { ...REQUEST, ConsulDNSIP: '192.168.1.118' },
      'an exclusion more': { ...REQUEST, ExcludeOutboundPorts: ['3306'] },
      'an exclusion less': { ...REQUEST, ExcludeInboundPorts: [] },
    };
    const netns = newNamespace();
    succeeds('ADD', { netns, on });
    for (const [what, request] of Object.entries(drifted)) {
      const warnings = succeeds('CHECK', { netns, on, request });
      assert.ok(warnings.length > 0, what);
      for (const line of warnings)
        assert.match(line, /^consul-cni: rules differ from the current configuration: /);
      assert.match(
        fails('CHECK', { netns, on, request, config: { check: 'strict' } }).msg,
        /the transparent-proxy rules are not as configured/,
      );
    }
  });

  for (const [key, before, now] of [
    ['exemptions', 'full', 'consul'],
    ['ipv6', 'reject', 'bypass'],
    ['ipv6', 'redirect', 'reject'],
    ['udp', 'reject', 'bypass'],
    ['dnsCapture', 'consul', 'all'],
  ] as const) {
    test(`${on.name}: "${key}" changed from ${before} to ${now} is a warning that names the key; damage fails`, () => {
      const netns = newNamespace();
      succeeds('ADD', { netns, on, config: { [key]: before } });
      const config = { [key]: now };
      assert.equal(succeeds('CHECK', { netns, on, config }), [
        `consul-cni: rules differ from the current configuration: "${key}" is "${now}", but was "${before}" at ADD`,
      ]);
      const [damage] = DAMAGES;
      assert.ok(damage);
      harm(netns, on, damage);
      assert.is(fails('CHECK', { netns, on, config }).code, 999);
    });
  }

  test(`${on.name}: lost DNS rules and lost refusals are warnings`, () => {
    const netns = newNamespace();
    succeeds('ADD', { netns, on });
    if (on.backend === 'nftables')
      sh(
        `ip netns exec ${netns} nft 'flush chain ${TABLE} CONSUL_DNS_REDIRECT; flush chain ${TABLE} CONSUL_FILTER_OUTPUT'`,
      );
    else
      sh(
        `ip netns exec ${netns} sh -c 'PATH=${on.path}; iptables -t nat -F CONSUL_DNS_REDIRECT; ip6tables -F OUTPUT'`,
      );
    const warnings = succeeds('CHECK', { netns, on }).join('\n');
    assert.match(warnings, /CONSUL_DNS_REDIRECT \(ipv4 nat\): missing -d 192\.168\.1\.117\/32 -p udp/);
    assert.match(warnings, /OUTPUT \(ipv6 filter\): missing -p tcp -m conntrack/);
    assert.is(fails('CHECK', { netns, on, config: { check: 'strict' } }).code, 999);
  });

  test(`${on.name}: arguments without DNS never fail, however strict (Consul may not be up yet when Nomad starts)`, () => {
    const netns = newNamespace();
    succeeds('ADD', { netns, on });
    const request = { ...REQUEST, ConsulDNSIP: '', ConsulDNSPort: 0 };
    for (const check of ['structure', 'strict']) {
      const warnings = succeeds('CHECK', { netns, on, request, config: { check } });
      assert.is(warnings.length, 1);
      assert.match(
        warnings[0] ?? '',
        /CNI_ARGS has no Consul DNS, but the rules redirect queries to 192\.168\.1\.117 port 8600; ignored/,
      );
    }
  });

  test(`${on.name}: a backend changed since does not fail`, () => {
    for (const other of BACKENDS.filter(({ backend }) => backend !== on.backend)) {
      const netns = newNamespace();
      succeeds('ADD', { netns, on: other });
      const warnings = succeeds('CHECK', { netns, on });
      assert.equal(warnings.length, 1, warnings.join('\n'));
      assert.match(
        warnings[0] ?? '',
        new RegExp(
          `the rules are in ${other.name}, but "backend" now selects ${on.name}; the next ADD moves them`,
        ),
      );
    }
  });

  test(`${on.name}: additional rules in another back end are a warning`, () => {
    for (const other of BACKENDS.filter(({ name }) => name !== on.name)) {
      const [netns, source] = [newNamespace(), newNamespace()];
      succeeds('ADD', { netns, on });
      succeeds('ADD', { netns: source, on: other, request: { ...REQUEST, ProxyInboundPort: 9998 } });
      copyRules(source, netns, other);
      const warnings = succeeds('CHECK', { netns, on });
      assert.is(warnings.length, 1, warnings.join('\n'));
      assert.match(warnings[0] ?? '', `${other.name} also holds transparent-proxy rules`);
      assert.match(
        fails('CHECK', { netns, on, config: { check: 'strict' } }).details ?? '',
        `${other.name} also holds transparent-proxy rules`,
      );
      succeeds('ADD', { netns, on });
      assert.equal(succeeds('CHECK', { netns, on, config: { check: 'strict' } }), []);
    }
  });
}

test('rules that consul-cni made pass: a fleet can change over without losing allocations', () => {
  const vectors = JSON.parse(
    readFileSync(resolve(import.meta.dirname, '../../../vectors/tproxy-vectors.json'), 'utf8'),
  ) as {
    config: object;
    dualStack: boolean;
    commands: string[];
  }[];
  for (const { config, commands, dualStack } of vectors.filter((vector) => !vector.dualStack)) {
    const netns = newNamespace();
    sh(`ip netns exec ${netns} sh -ec '${commands.join('\n')}'`);
    const { exitCode, stdout } = call('CHECK', { netns, request: config });
    assert.is(exitCode, 0, `${stdout} ${String(dualStack)}`);
  }
});

test('so do those of its coming nftables version, and the next ADD takes them over on any backend', () => {
  const file = resolve(import.meta.dirname, '../../../vectors/tproxy-nft-vectors.json');
  const vectors = JSON.parse(readFileSync(file, 'utf8')) as {
    name: string;
    config: object;
    dualStack: boolean;
    script: string[];
  }[];
  const fresh = newNamespace();
  for (const { config, script, name } of vectors.filter((vector) => !vector.dualStack)) {
    const netns = newNamespace();
    writeFileSync('/tmp/script.nft', `${script.join('\n')}\n`);
    sh(`ip netns exec ${netns} nft -f /tmp/script.nft`);
    const { exitCode, stdout } = call('CHECK', { netns, request: config, on: backendNamed('nftables') });
    assert.is(exitCode, 0, `${name}: ${stdout}`);
    if (name !== 'nomad-countdash-dashboard') continue;
    for (const on of BACKENDS) {
      sh(`ip netns exec ${netns} nft -f /tmp/script.nft`);
      succeeds('ADD', { netns, on });
      succeeds('ADD', { netns: fresh, on });
      assert.is(leftovers(netns), leftovers(fresh));
    }
  }
});

test('an invalid weft.json is a warning and fails no allocation', () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  sh('mkdir -p /etc/weft; echo "{" > /etc/weft/weft.json');
  try {
    const warnings = succeeds('CHECK', { netns });
    assert.is(warnings.length, 1);
    assert.match(warnings[0] ?? '', /using built-in defaults: \/etc\/weft\/weft\.json/);
    sh(`ip netns exec ${netns} iptables -t nat -F OUTPUT`);
    assert.is(fails('CHECK', { netns }).code, 999);
    sh(`printf '{"tproxy":{"check":"off"}}' > /etc/weft/weft.json`);
    assert.equal(succeeds('CHECK', { netns }), []);
  } finally {
    sh('rm -r /etc/weft');
  }
});

test('CHECK with missing or invalid arguments uses those of ADD; where they are not cached, it warns', () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  for (const request of ['', { ...REQUEST, ProxyUserID: 'no-such-user' }]) {
    const reason = request === '' ? 'CNI_ARGS has no CONSUL_IPTABLES_CONFIG' : '"no-such-user" is neither';
    const check = (): string => succeeds('CHECK', { netns, request }).join('\n');
    assert.match(check(), reason);
    assert.match(check(), 'not checked, because those of ADD are not cached');
    assert.match(fails('CHECK', { netns, request, config: { check: 'strict' } }).msg, reason);
    mkdirSync('/var/lib/cni/results', { recursive: true });
    const cached = {
      kind: 'cniCacheV1',
      containerId: 'alloc-1',
      ifName: 'eth0',
      networkName: 'nomad',
      cniArgs: [['CONSUL_IPTABLES_CONFIG', JSON.stringify(REQUEST)]],
    };
    writeFileSync('/var/lib/cni/results/nomad-alloc-1-eth0', JSON.stringify(cached));
    assert.match(check(), 'checked with the arguments of ADD');
    sh(`ip netns exec ${netns} iptables -t nat -F CONSUL_PROXY_REDIRECT`);
    assert.is(fails('CHECK', { netns, request }).code, 999);
    rmSync('/var/lib/cni/results', { recursive: true });
    succeeds('ADD', { netns });
  }
});

test.run();
