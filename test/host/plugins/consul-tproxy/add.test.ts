/** What ADD leaves: the whole set, once, whatever stood there before; and nothing at all when it fails. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import {
  BACKENDS,
  call,
  fails,
  leftovers,
  makeLegacyFolder,
  newNamespace,
  REQUEST,
  saved,
  sh,
  startCall,
  succeeds,
  type TestedBackend,
} from '../../../support/tproxy.ts';

const test = suite('consul-tproxy: ADD', { limit: 60 });

/** Everything that a job can ask for, so that the goldens hold every kind of rule. */
const RICH = {
  ...REQUEST,
  ExcludeInboundPorts: ['0', '9002', '-1', '08080', '8000:8010', '8080'],
  ExcludeOutboundPorts: ['3306', '6000-6010'],
  ExcludeOutboundCIDRs: ['10.0.0.1/8', 'fd00:0::1/8', '192.0.2.7', '2001:db8::7'],
  ExcludeUIDs: ['daemon', '200-210'],
};

test.before(makeLegacyFolder);

for (const on of BACKENDS) {
  test(`${on.name}: the default set is the golden, byte for byte`, () => {
    const netns = newNamespace();
    const warnings = succeeds('ADD', { netns, on, request: RICH });
    assert.is(warnings.length, 2, 'one for "0", one for "-1"');
    assert.is(rules(netns, on), golden(on.backend === 'nftables' ? 'full.nft' : 'full.rules'));
  });

  test(`${on.name}: everything refused and captured is the golden, byte for byte`, () => {
    const netns = newNamespace();
    succeeds('ADD', { netns, on, request: REQUEST, config: { udp: 'reject', dnsCapture: 'all' } });
    assert.is(rules(netns, on), golden(on.backend === 'nftables' ? 'strictest.nft' : 'strictest.rules'));
  });

  test(`${on.name}: a second ADD changes nothing, not even the handles of the rules`, () => {
    const netns = newNamespace();
    succeeds('ADD', { netns, on });
    const before = everything(netns);
    succeeds('ADD', { netns, on });
    assert.is(everything(netns), before);
  });

  test(`${on.name}: an ADD that asks for something else replaces everything`, () => {
    const first = newNamespace();
    succeeds('ADD', {
      netns: first,
      on,
      request: { ...RICH, ConsulDNSIP: '', ConsulDNSPort: 0 },
      config: { udp: 'reject' },
    });
    succeeds('ADD', { netns: first, on });
    const second = newNamespace();
    succeeds('ADD', { netns: second, on });
    assert.is(rules(first, on), rules(second, on));
  });

  test(`${on.name}: other rules in the namespace are left alone`, () => {
    const netns = newNamespace();
    const others = [
      'iptables -t nat -A OUTPUT -p tcp -d 198.51.100.1 -m mark --mark 7 -j ACCEPT',
      'iptables -t nat -N MINE',
      'iptables -t nat -A MINE -m limit --limit 5/min -j RETURN',
      'ip6tables -A OUTPUT -p udp -m length --length 100:200 -j DROP',
      'nft add table inet mine',
    ];
    for (const command of others) sh(`ip netns exec ${netns} ${command}`);
    succeeds('ADD', { netns, on });
    succeeds('DEL', { netns, on });
    const left = sh(
      `ip netns exec ${netns} sh -c "iptables-save -t nat; ip6tables-save -t filter; nft list tables"`,
    );
    for (const text of ['--mark 0x7 -j ACCEPT', '-A MINE -m limit', 'length 100:200', 'inet mine']) {
      assert.ok(left.includes(text), `${text} is gone: ${left}`);
    }
    assert.not.match(left, /CONSUL/);
  });
}

test("rules for DNS of a later ADD precede the proxy's, and disappear with the next ADD", () => {
  const netns = newNamespace();
  const [on] = BACKENDS;
  assert.ok(on);
  const noDns = { ...REQUEST, ConsulDNSIP: '', ConsulDNSPort: 0 };
  succeeds('ADD', { netns, on, request: noDns });
  const before = saved(netns, on);
  succeeds('ADD', { netns, on });
  const hooks = saved(netns, on).filter((line) => line.startsWith('-A OUTPUT'));
  assert.equal(
    hooks.map((line) => line.replace(/^.* -j /, '')),
    ['CONSUL_DNS_REDIRECT', 'CONSUL_DNS_REDIRECT', 'CONSUL_PROXY_OUTPUT'],
  );
  succeeds('ADD', { netns, on, request: noDns });
  assert.equal(saved(netns, on), before);
});

test('iptables-legacy: a busy or hung iptables on the host delays no allocation', () => {
  const netns = newNamespace();
  const on = BACKENDS.find(({ name }) => name === 'iptables-legacy');
  assert.ok(on);
  sh('touch /run/xtables.lock; flock /run/xtables.lock sleep 30 >/dev/null 2>&1 & sleep 0');
  const began = Date.now();
  succeeds('ADD', { netns, on });
  assert.ok(Date.now() - began < 15_000);
});

test('two ADDs at once for the same allocation leave one set', async () => {
  const netns = newNamespace();
  const fresh = newNamespace();
  succeeds('ADD', { netns: fresh });
  const outcomes = await Promise.all([1, 2, 3].map(() => startCall('ADD', { netns })));
  for (const { exitCode, stdout } of outcomes) assert.is(exitCode, 0, stdout);
  assert.is(leftovers(netns), leftovers(fresh));
});

test('a host with a name service behind a network keeps it out of the allocation', () => {
  const netns = newNamespace();
  const on = BACKENDS.find(({ name }) => name === 'iptables-legacy');
  assert.ok(on);
  sh('cp /etc/nsswitch.conf /tmp/nsswitch; printf "passwd: files ldap\\n" > /etc/nsswitch.conf');
  try {
    succeeds('ADD', { netns, on });
    assert.match(saved(netns, on).join('\n'), /--uid-owner 101 -j RETURN/);
    // Where iptables has to be run: whatever PATH the caller has, the wrapping finds its programs.
    const [folder = ''] = on.path.split(':');
    const wrapped = newNamespace();
    succeeds('ADD', { netns: wrapped, on: { ...on, path: folder }, refused: 'getsockopt:error=ENOPROTOOPT' });
    assert.equal(saved(wrapped, on), saved(netns, on));
    assert.is(readFileSync('/etc/nsswitch.conf', 'utf8'), 'passwd: files ldap\n');
  } finally {
    sh('cp /tmp/nsswitch /etc/nsswitch.conf; rm /tmp/nsswitch');
  }
});

test('a refused rule in the middle leaves nothing, and the next ADD is whole', () => {
  const netns = newNamespace();
  const fresh = newNamespace();
  const folder = '/run/bad-restore';
  // Lets the IPv4 rules through and spoils the IPv6 ones, so that one table is already written.
  sh(`mkdir -p ${folder}; for t in iptables iptables-save iptables-restore ip6tables ip6tables-save; do ln -sf /usr/sbin/xtables-legacy-multi ${folder}/$t; done
    cat > ${folder}/ip6tables-restore << 'END'
#!/bin/sh
sed "s/^COMMIT/-A CONSUL_PROXY_REJECT_IN -j NO_SUCH_TARGET\\nCOMMIT/" | exec /usr/sbin/xtables-legacy-multi ip6tables-restore "$@"
END
    chmod +x ${folder}/ip6tables-restore`);
  const broken = {
    name: 'iptables-legacy',
    backend: 'iptables',
    path: `${folder}:/usr/sbin:/usr/bin:/sbin:/bin`,
  } as const;
  const refused = 'getsockopt:error=ENOPROTOOPT';
  const { msg, details } = fails('ADD', { netns, on: broken, refused });
  assert.match(`${msg} ${details ?? ''}`, /ip6tables-restore.*NO_SUCH_TARGET/);
  assert.is(leftovers(netns), '');
  succeeds('ADD', { netns });
  succeeds('ADD', { netns: fresh });
  assert.is(leftovers(netns), leftovers(fresh));
});

test('the result is that of the plugins before, with Consul for DNS', () => {
  const netns = newNamespace();
  const { stdout } = call('ADD', { netns });
  const result = JSON.parse(stdout) as Record<string, unknown>;
  assert.equal(result['dns'], { nameservers: ['192.168.1.117'] });
  assert.equal(result['interfaces'], [
    { name: 'eth0', mac: '02:00:00:00:00:02', sandbox: '/var/run/netns/x' },
  ]);
  assert.equal(result['ips'], [
    { version: '4', address: '172.26.64.2/20', gateway: '172.26.64.1', interface: 0 },
  ]);
});

test('without plugins before, the result is empty but for DNS, in the version asked for', () => {
  for (const cniVersion of ['0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
    const netns = newNamespace();
    const { exitCode, stdout } = call('ADD', { netns, config: { cniVersion, prevResult: undefined } });
    assert.is(exitCode, 0, stdout);
    const result = JSON.parse(stdout) as Record<string, unknown>;
    assert.is(result['cniVersion'], cniVersion);
    assert.equal(result['dns'], { nameservers: ['192.168.1.117'] });
  }
});

test('without Consul DNS the result keeps the DNS it had', () => {
  const dns = { nameservers: ['192.0.2.53'], search: ['example.org'] };
  const config = {
    prevResult: { cniVersion: '0.4.0', ips: [{ version: '4', address: '10.0.0.2/24' }], dns },
  };
  const request = { ...REQUEST, ConsulDNSIP: '', ConsulDNSPort: 0 };
  const { stdout } = call('ADD', { netns: newNamespace(), request, config });
  assert.equal((JSON.parse(stdout) as Record<string, unknown>)['dns'], dns);
});

test("the node's defaults count where the list says nothing", () => {
  sh(
    `mkdir -p /etc/weft; printf '{"backend":"nftables","tproxy":{"ipv6":"bypass","exemptions":"consul"}}' > /etc/weft/weft.json`,
  );
  try {
    const netns = newNamespace();
    succeeds('ADD', { netns, config: { backend: undefined } });
    const table = sh(`ip netns exec ${netns} nft list table inet consul_tproxy`);
    assert.not.match(table, /reject|127\.0\.0\.0\/8/);
    const other = newNamespace();
    succeeds('ADD', { netns: other, config: { ipv6: 'reject' } });
    assert.match(sh(`ip netns exec ${other} ip6tables-save`), /tcp-reset/);
    sh(`printf '{"tproxy":{"ipv6":"sometimes"}}' > /etc/weft/weft.json`);
    const { code, msg } = fails('ADD', { netns: newNamespace() });
    assert.is(code, 7);
    assert.match(msg, /weft\.json.*"ipv6" must be one of/);
    sh(`printf '{"tproxy":{"IPV6":"reject","ip6":"reject"}}' > /etc/weft/weft.json`);
    assert.match(fails('ADD', { netns: newNamespace() }).msg, /weft\.json: "ip6" is not known/);
    // Whatever is in that file: an allocation can always be taken down.
    succeeds('DEL', { netns: other });
  } finally {
    sh('rm -r /etc/weft');
  }
});

test.run();

function golden(name: string): string {
  return readFileSync(resolve(import.meta.dirname, 'goldens', name), 'utf8');
}

/** All of our rules as one text, the way the goldens are. */
function rules(netns: string, on: TestedBackend): string {
  if (on.backend === 'nftables') return sh(`ip netns exec ${netns} nft -s list table inet consul_tproxy`);
  const tables = (['ipv4', 'ipv6'] as const).flatMap((family) =>
    ['nat', 'filter'].map((table) => [family, table] as const),
  );
  return tables
    .map(([family, table]) => [`# ${family}`, ...saved(netns, on, family, table)])
    .filter((lines) => lines.some((line) => line.includes('CONSUL')))
    .map((lines) => `${lines.join('\n')}\n`)
    .join('');
}

/** With handles, which change when a rule is made anew. */
function everything(netns: string): string {
  return `${sh(`ip netns exec ${netns} nft -a list ruleset`)}${leftovers(netns)}`;
}
