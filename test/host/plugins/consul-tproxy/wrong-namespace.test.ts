/** CNI_NETNS that is another container's namespace, no namespace at all, or a DEL whose configuration ADD would reject. */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import {
  BACKENDS,
  fails,
  leftovers,
  makeLegacyFolder,
  newNamespace,
  PREVIOUS,
  sh,
  succeeds,
} from '../../../support/tproxy.ts';

const test = suite('consul-tproxy: wrong namespace or configuration', { limit: 90 });

test.before(makeLegacyFolder);
test.before(() => {
  for (const dir of ['/var/run/cni', '/var/lib/cni']) mkdirSync(dir, { recursive: true });
});
test.beforeEach(() => {
  for (const dir of ['/var/run/cni/nomad', '/var/lib/cni/networks'])
    rmSync(dir, { recursive: true, force: true });
});

for (const on of BACKENDS) {
  for (const store of ['/var/run/cni/nomad', '/var/lib/cni/networks/nomad']) {
    test(`${on.name}: DEL with a path that now leads to another container's namespace changes nothing there (leases in ${store})`, () => {
      const netns = connected('172.26.64.3/20');
      lease(store, '172.26.64.3', 'running');
      succeeds('ADD', { netns, on, id: 'running', config: { prevResult: result('172.26.64.3/20') } });
      const before = leftovers(netns);
      const [warning, ...more] = succeeds('DEL', { netns, on, id: 'gone' });
      assert.match(
        warning ?? '',
        /not changed, because it is the network namespace of another container: its address 172\.26\.64\.3 is leased to running/,
      );
      assert.equal(more, []);
      assert.is(leftovers(netns), before);
      assert.ok(existsSync(`/etc/netns/${netns}/resolv.conf`));
      assert.equal(succeeds('DEL', { netns, on, id: 'running' }), []);
      assert.is(leftovers(netns), '');
    });
  }

  test(`${on.name}: DEL with a prevResult of other addresses than the namespace's changes nothing there`, () => {
    const netns = connected('172.26.64.3/20');
    succeeds('ADD', { netns, on, id: 'running', config: { prevResult: result('172.26.64.3/20') } });
    const before = leftovers(netns);
    const config = { prevResult: result('172.26.64.2/20') };
    assert.match(
      succeeds('DEL', { netns, on, id: 'gone', config }).join(),
      /it has the address 172\.26\.64\.3 and none of this container's/,
    );
    assert.is(leftovers(netns), before);
    assert.equal(
      succeeds('DEL', { netns, on, id: 'running', config: { prevResult: result('172.26.64.3/20') } }),
      [],
    );
    assert.is(leftovers(netns), '');
  });

  test(`${on.name}: ADD into another container's namespace is refused before anything changes`, () => {
    const netns = connected('172.26.64.3/20');
    lease('/var/run/cni/nomad', '172.26.64.3', 'running');
    const { code, msg } = fails('ADD', { netns, on, id: 'new' });
    assert.is(code, 8);
    assert.match(msg, /belongs to another container: its address 172\.26\.64\.3 is leased to running/);
    assert.is(leftovers(netns), '');
    assert.not.ok(existsSync(`/etc/netns/${netns}`));
  });

  test(`${on.name}: DEL removes rules and resolv.conf whatever options, arguments and weft.json say`, () => {
    const broken: Record<string, unknown>[] = [
      { exemptions: 5, ipv6: [], udp: {}, dnsCapture: null, check: 'never', backend: 'pf' },
      { backend: ['iptables'] },
      { prevResult: 'none' },
      { prevResult: { cniVersion: '0.4.0', ips: [{ address: 'x' }] } },
      { dns: { nameservers: 'x' } },
    ];
    for (const config of broken) {
      const netns = newNamespace();
      succeeds('ADD', { netns, on });
      succeeds('DEL', { netns, on, config });
      assert.is(leftovers(netns), '', JSON.stringify(config));
      assert.not.ok(existsSync(`/etc/netns/${netns}`));
    }
    mkdirSync('/etc/weft', { recursive: true });
    try {
      for (const text of ['{', '[]', '{"tproxy":5}', '{"backend":"pf"}', '{"unknown":1}']) {
        const netns = newNamespace();
        rmSync('/etc/weft/weft.json', { force: true });
        succeeds('ADD', { netns, on });
        writeFileSync('/etc/weft/weft.json', text);
        succeeds('DEL', { netns, on });
        assert.is(leftovers(netns), '', text);
      }
    } finally {
      rmSync('/etc/weft', { recursive: true });
    }
  });
}

test('a line break in the DNS of an earlier plugin is refused before anything changes', () => {
  for (const dns of [
    { search: ['example.org\nnameserver 192.0.2.66'] },
    { options: ['ndots:2\nnameserver 192.0.2.66'] },
    { domain: 'example.org\nnameserver 192.0.2.66' },
    { nameservers: ['192.0.2.1\nsearch evil.example'] },
    { search: ['example.org\r'] },
  ]) {
    const netns = newNamespace();
    const { code, msg } = fails('ADD', { netns, config: { prevResult: { ...PREVIOUS, dns } } });
    assert.is(code, 7, JSON.stringify(dns));
    assert.match(
      msg,
      new RegExp(`dns\\.${Object.keys(dns)[0] ?? ''} in prevResult must not contain line breaks`),
    );
    assert.is(leftovers(netns), '');
    assert.not.ok(existsSync(`/etc/netns/${netns}`));
  }
});

test('an empty temporary resolv.conf of a killed call is removed when it is old, by a DEL without the namespace', () => {
  const [old, fresh] = ['old', 'fresh'].map((name) => {
    sh(`mkdir -p /etc/netns/${name}; touch /etc/netns/${name}/.resolv.conf.weft`);
    return `/etc/netns/${name}`;
  });
  sh('touch -d "2 hours ago" /etc/netns/old/.resolv.conf.weft');
  succeeds('DEL', { netns: '', id: 'gone' });
  assert.equal([existsSync(old ?? ''), existsSync(fresh ?? '')], [false, true]);
  sh('rm -r /etc/netns');
});

test.run();

/** A namespace with this address on eth0. */
function connected(address: string): string {
  const netns = newNamespace();
  sh(`ip -n ${netns} link add eth0 type veth peer name peer0 && ip -n ${netns} addr add ${address} dev eth0`);
  return netns;
}

function lease(store: string, address: string, id: string): void {
  mkdirSync(store, { recursive: true });
  writeFileSync(`${store}/${address}`, `${id}\r\neth0`);
}

function result(address: string): object {
  return { ...PREVIOUS, ips: [{ version: '4', address, interface: 0 }] };
}
