/** `weft show`: the rules in force, and what they do to traffic, in words that are true. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import {
  BACKENDS,
  leftovers,
  makeLegacyFolder,
  newNamespace,
  REQUEST,
  sh,
  succeeds,
} from '../../support/tproxy.ts';
import { DAMAGES, harm } from '../../support/tproxy-damages.ts';
import { executable } from '../../support/executables.ts';
import { suite } from '../../support/suite.ts';

const test = suite('weft show', { limit: 60 });

const children: ChildProcess[] = [];
test.before(makeLegacyFolder);
test.after(() => {
  for (const child of children) child.kill('SIGKILL');
});

for (const on of BACKENDS) {
  test(`${on.name}: rules with counters, a paragraph for each kind of traffic`, async () => {
    const netns = newNamespace();
    succeeds('ADD', {
      netns,
      on,
      request: { ...REQUEST, ExcludeOutboundCIDRs: ['10.0.0.0/8', 'fd00::/8'], ExcludeUIDs: ['200'] },
    });
    sh(`ip -n ${netns} addr add 192.0.2.1/32 dev lo`);
    await serve(netns, 101, 15001);
    sh(`ip netns exec ${netns} ${process.execPath} -e 'net.connect(80, "192.0.2.1", () => process.exit())'`);
    const before = leftovers(netns).replaceAll(/\[\d+:\d+\]/g, '');
    const { status, stdout, stderr } = show(netns, on.path);
    assert.equal([status, stderr], [0, '']);
    assert.match(stdout, new RegExp(`^Rules in ${on.name}$`, 'm'));
    const counted =
      on.backend === 'nftables'
        ? /counter packets 1 bytes \d+ redirect to :15001/
        : /^\[1:\d+\] -A CONSUL_PROXY_REDIRECT -p tcp -j REDIRECT --to-ports 15001$/m;
    assert.match(stdout, counted);
    assert.match(
      stdout,
      /^Outbound: TCP over IPv4 goes to the proxy on port 15001, .*; exempt: user 200, to 10\.0\.0\.0\/8, user 101, to 127\.0\.0\.1\/32, to 127\.0\.0\.0\/8, port 53\. TCP over IPv6 is refused with a reset, .*; exempt: user 101, user 200, to ::1\/128, to fd00::\/8, port 53\. UDP other than DNS is not intercepted\.$/m,
    );
    assert.match(
      stdout,
      /^Inbound: TCP that arrives over IPv4, for any port, goes to the proxy's public listener on port 9999; exempt: port 9002\. TCP that arrives over IPv6 is refused with a reset; exempt: from the allocation itself, port 9002, port 9999\. Inbound UDP is not intercepted\.$/m,
    );
    assert.match(
      stdout,
      /^DNS: Queries over IPv4 to 192\.168\.1\.117, port 53, UDP and TCP, from every process, go to Consul at 192\.168\.1\.117:8600\. Other queries over IPv4 and IPv6 go to their server over UDP and TCP\.$/m,
    );
    assert.match(stdout, /^Proxy: \S+ \(pid \d+, uid 101\) listens on port 15001\.$/m);
    assert.not.match(stdout, /Warning/);
    assert.is(leftovers(netns).replaceAll(/\[\d+:\d+\]/g, ''), before);
  });

  test(`${on.name}: other choices read differently`, () => {
    const netns = newNamespace();
    succeeds('ADD', {
      netns,
      on,
      config: { exemptions: 'consul', ipv6: 'bypass', udp: 'reject', dnsCapture: 'all' },
    });
    const { stdout } = show(netns, on.path);
    assert.match(stdout, /TCP over IPv6 bypasses the proxy\. UDP over IPv4 is refused \(port unreachable\)/);
    assert.match(stdout, /TCP that arrives over IPv6 bypasses the proxy and reaches the listening program/);
    assert.match(
      stdout,
      /^DNS: Queries over IPv4 to any server, port 53, UDP and TCP, except those of exempt users or to exempt networks, go to Consul at \S+\. Other queries over IPv6 go to their server over UDP and TCP\.$/m,
    );
    succeeds('ADD', {
      netns,
      on,
      config: { ipv6: 'redirect' },
      request: { ...REQUEST, ConsulDNSIP: '', ConsulDNSPort: 0 },
    });
    const again = show(netns, on.path).stdout;
    assert.match(again, /TCP over IPv6 goes to the proxy on port 15001/);
    assert.match(
      again,
      /^DNS: DNS is not captured\. Queries over IPv4 and IPv6 go to their server over UDP and TCP\.$/m,
    );
    assert.match(again, /Proxy: nothing listens on port 15001 yet\./);
  });

  test(`${on.name}: where queries do not get through, it says so`, () => {
    const said = (config: Record<string, string>, request: object = REQUEST): string => {
      const netns = newNamespace();
      succeeds('ADD', { netns, on, config, request });
      return /^DNS: (.*)$/m.exec(show(netns, on.path).stdout)?.[1] ?? '';
    };
    assert.match(said({ dnsCapture: 'all' }), /Other queries over IPv6 are refused\.$/);
    assert.match(
      said({ exemptions: 'consul' }, { ...REQUEST, ConsulDNSIP: '', ConsulDNSPort: 0 }),
      /^DNS is not captured\. Queries over IPv4 go to their server over UDP; over TCP they go to the proxy\. Queries over IPv6 go to their server over UDP; over TCP they are refused\.$/,
    );
  });

  test(`${on.name}: unreachable rules are not described as if they had an effect`, () => {
    const everything = newNamespace();
    succeeds('ADD', {
      netns: everything,
      on,
      request: { ...REQUEST, ExcludeOutboundCIDRs: ['0.0.0.0/0', '::/0'] },
    });
    assert.match(
      show(everything, on.path).stdout,
      /^Outbound: TCP over IPv4 bypasses the proxy\. TCP over IPv6 bypasses the proxy\. /m,
    );
    const damaged = DAMAGES.filter(({ what }) => /jump for (in|out)bound|for all (users|inbound)/.test(what));
    assert.is(damaged.length, 4);
    for (const damage of damaged) {
      const netns = newNamespace();
      succeeds('ADD', { netns, on });
      harm(netns, on, damage);
      const around = /jump for inbound|all inbound connections/.test(damage.what)
        ? /^Inbound: TCP that arrives over IPv4 bypasses the proxy and reaches the listening program\./m
        : /^Outbound: TCP over IPv4 bypasses the proxy\./m;
      assert.match(show(netns, on.path).stdout, around, damage.what);
    }
  });
}

test('names the process that runs as the proxy', async () => {
  const netns = newNamespace();
  succeeds('ADD', { netns });
  await serve(netns, 101, 15001);
  const child = await serve(netns, 101, 8080);
  assert.match(
    show(netns).stdout,
    new RegExp(`Warning: not in the mesh: \\S+ \\(pid ${child.pid}, uid 101\\) runs as the proxy's user`),
  );
});

test('takes a path; says so when there is nothing, no namespace, or no name', () => {
  const netns = newNamespace();
  const nothing = show(`/run/netns/${netns}`);
  assert.equal([nothing.status, nothing.stdout], [1, '']);
  assert.match(nothing.stderr, /has no transparent-proxy rules/);
  assert.match(show('never-made').stderr, /failed to open netns "\/var\/run\/netns\/never-made"/);
  assert.is(spawnSync(executable('weft'), ['show']).status, 2);
});

test.run();

function show(
  netns: string,
  path = process.env['PATH'] ?? '',
): { stdout: string; stderr: string; status: number | null } {
  return spawnSync(executable('weft'), ['show', '--netns', netns], { encoding: 'utf8', env: { PATH: path } });
}

async function serve(netns: string, uid: number, port: number): Promise<ChildProcess> {
  const program = resolve(import.meta.dirname, '../plugins/consul-tproxy/programs/listen.ts');
  const spec = JSON.stringify([{ protocol: 'tcp', host: '127.0.0.1', port, label: 'x' }]);
  const node = [process.execPath, '--no-warnings', '--experimental-ffi', program, String(uid), spec];
  const child = spawn('ip', ['netns', 'exec', netns, ...node], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  await once(child.stdout, 'data');
  return child;
}
