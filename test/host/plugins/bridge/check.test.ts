import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { executable } from '../../../support/executables.ts';
import { fail, runPluginProcess, succeed, variables } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  cacheResult,
  cleanHost,
  DUAL,
  hostState,
  ipam,
  link,
  makeNamespace,
  network,
  readSysctl,
  sh,
} from './host.ts';

const test = suite('bridge CHECK', { limit: 60 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const c1 = { id: 'cont1', netns: '/run/netns/c1' };
const full = (own: Record<string, unknown> = {}): Record<string, unknown> =>
  network({
    ipMasq: true,
    macspoofchk: true,
    hairpinMode: true,
    portIsolation: true,
    ipam: ipam(DUAL),
    ...own,
  });

function added(config: Record<string, unknown>): Record<string, unknown> & { prevResult: CniResult } {
  makeNamespace('c1');
  const prevResult = succeed('bridge', 'ADD', c1, config) as CniResult;
  cacheResult(config, c1);
  return { ...config, prevResult };
}

const check = (config: object, own: object = {}): unknown =>
  succeed('bridge', 'CHECK', { ...c1, ...own }, config);
const complaint = (config: object, own: object = {}): string =>
  fail('bridge', 'CHECK', { ...c1, ...own }, config).msg;

test('all is well after ADD, of every kind and version; and CHECK changes nothing', () => {
  const kinds: Record<string, unknown>[] = [
    full(),
    full({ ipMasqBackend: 'nftables', cniVersion: '1.1.0' }),
    full({ cniVersion: '0.4.0' }),
    network({ promiscMode: true, isDefaultGateway: true }),
    network({ isGateway: false, ipam: ipam(DUAL) }),
  ];
  for (const kind of kinds) {
    const config = added(kind);
    const state = hostState();
    check(config);
    assert.equal(hostState(), state);
    succeed('bridge', 'DEL', c1, config);
    sh('ip netns del c1; ip link del br0');
  }
});

test('layer-2 networks pass, up or disabled', () => {
  for (const own of [{ ipam: {} }, { ipam: undefined, disableContainerInterface: true }]) {
    const config = added(network({ isGateway: false, ...own }));
    check(config);
    sh('ip -n c1 link del eth0');
    assert.match(complaint(config), /interface eth0 is missing in \/run\/netns\/c1/);
    sh('ip netns del c1');
  }
});

test('the same namespace by another path is the same: /var/run is a link', () => {
  const config = added(full());
  sh('ln -sfn /run /var/run');
  check(config, { netns: '/var/run/netns/c1' });
});

/** Each breaks one thing that matters, and what CHECK has to say about it. `mend` lets the next one start from a sound network. */
const DAMAGE: readonly { what: string; harm: string; says: RegExp; mend?: string }[] = [
  { what: 'bridge down', harm: 'ip link set br0 down', says: /bridge br0 is down/ },
  {
    what: 'bridge MAC',
    harm: 'ip link set br0 address 02:00:00:00:00:99',
    says: /bridge br0 has MAC 02:00:00:00:00:99, it had /,
  },
  { what: 'bridge gone', harm: 'ip link del br0', says: /bridge br0 is missing/ },
  {
    what: 'bridge is another kind',
    harm: 'ip link del br0; ip link add br0 type veth peer name x',
    says: /br0 is not a bridge but veth/,
  },
  {
    what: 'gateway address gone',
    harm: 'ip addr del 10.88.0.1/16 dev br0',
    says: /br0 lacks the gateway address 10\.88\.0\.1\/16/,
  },
  {
    what: 'IPv6 gateway address gone',
    harm: 'ip addr del fd00:88::1/64 dev br0',
    says: /br0 lacks the gateway address fd00:88::1\/64/,
  },
  {
    what: 'forwarding off',
    harm: 'sysctl -qw net.ipv4.ip_forward=0',
    says: /forwarding is off: net\.ipv4\.ip_forward/,
  },
  {
    what: 'IPv6 forwarding off',
    harm: 'sysctl -qw net.ipv6.conf.all.forwarding=0',
    says: /forwarding is off: net\.ipv6\.conf\.all\.forwarding/,
  },
  { what: 'eth0 gone', harm: 'ip -n c1 link del eth0', says: /interface eth0 is missing/ },
  { what: 'eth0 down', harm: 'ip -n c1 link set eth0 down', says: /interface eth0 is down/ },
  {
    what: 'eth0 MAC',
    harm: 'ip -n c1 link set eth0 address 02:00:00:00:00:98',
    says: /interface eth0 has MAC 02:00:00:00:00:98, ADD gave it /,
  },
  {
    what: 'eth0 of another kind',
    harm: 'ip -n c1 link del eth0; ip -n c1 link add eth0 type bridge',
    says: /not a veth but bridge/,
  },
  {
    what: 'port off the bridge',
    harm: 'ip link set HOST nomaster',
    says: /HOST is not a port of bridge br0/,
  },
  { what: 'port down', harm: 'ip link set HOST down', says: /HOST is down/ },
  { what: 'hairpin off', harm: 'bridge link set dev HOST hairpin off', says: /HOST is not in hairpin mode/ },
  { what: 'isolation off', harm: 'bridge link set dev HOST isolated off', says: /HOST is not isolated/ },
  {
    what: 'address gone',
    harm: 'ip -n c1 addr add 10.88.0.77/16 dev eth0; ip -n c1 addr del 10.88.0.2/16 dev eth0',
    says: /Failed to match addr 10\.88\.0\.2\/16 on interface eth0/,
  },
  {
    what: 'IPv6 address gone',
    harm: 'ip -n c1 addr del fd00:88::2/64 dev eth0',
    says: /Failed to match addr fd00:88::2\/64 on interface eth0/,
  },
  {
    what: 'route gone',
    harm: 'ip -n c1 route del default',
    says: /Expected Route to 0\.0\.0\.0\/0 on eth0 is missing/,
  },
  {
    what: 'route by another device',
    harm: 'ip -n c1 link add d0 type veth peer name d1; ip -n c1 link set d0 up; ip -n c1 route del default; ip -n c1 route add default dev d0',
    says: /Expected Route to 0\.0\.0\.0\/0 on eth0/,
  },
  {
    what: 'IPv6 route gone',
    harm: 'ip -n c1 -6 route del default',
    says: /Expected Route to ::\/0 on eth0 is missing/,
  },
  { what: 'iptables flushed', harm: 'iptables -t nat -F', says: /masquerading is not complete/ },
  { what: 'ip6tables flushed', harm: 'ip6tables -t nat -F', says: /masquerading is not complete/ },
  {
    what: 'spoofing check flushed',
    harm: 'nft flush table bridge nat',
    says: /MAC spoofing check is not complete/,
  },
  {
    what: 'spoofing check gone',
    harm: 'nft delete table bridge nat',
    says: /MAC spoofing check is not complete/,
  },
  {
    what: 'lease gone',
    harm: 'rm /run/cni/net1/10.88.0.2',
    says: /Failed to find address added by container cont1/,
  },
];

for (const { what, harm, says } of DAMAGE) {
  test(what, () => {
    const config = added(full());
    const host = config.prevResult.interfaces[1]?.name ?? '';
    sh(harm.replaceAll('HOST', host));
    const state = hostState();
    assert.match(complaint(config), new RegExp(says.source.replaceAll('HOST', host)));
    assert.equal(hostState(), state, 'CHECK changed something');
  });
}

test('nftables rules flushed', () => {
  const config = added(full({ ipMasqBackend: 'nftables' }));
  sh('nft flush map inet weft_masquerade ipv4');
  assert.match(
    complaint(config),
    /map ipv4 of table inet weft_masquerade does not lead 10\.88\.0\.2 to chain/,
  );
  const [chain = ''] = /masq-[0-9a-f]{16}-[0-9a-f]{16}/.exec(sh('nft list table inet weft_masquerade')) ?? [];
  sh(`nft flush chain inet weft_masquerade ${chain}`);
  assert.match(
    complaint(config),
    /masquerading is not complete: the nftables rule that masquerades 10\.88\.0\.2\/16/,
  );
  sh('nft flush chain inet weft_masquerade postrouting');
  assert.match(complaint(config), /chain postrouting of table inet weft_masquerade/);
  sh('nft delete table inet weft_masquerade');
  assert.match(complaint(config), /table inet weft_masquerade is missing/);
});

test('CHECK fails when configured promiscuous mode is off, and passes when another program switched it on', () => {
  const config = added(network({ promiscMode: true }));
  sh('ip link set br0 promisc off');
  assert.match(complaint(config), /br0 is not in promiscuous mode/);
  sh('ip link set br0 promisc on');
  check(config);
});

test('what prevResult says that cannot be', () => {
  const config = added(full());
  const { prevResult } = config;
  assert.match(complaint({ ...config, prevResult: undefined }), /Required prevResult missing/);
  const [bridge, host, container] = prevResult.interfaces;
  const elsewhere = {
    ...prevResult,
    interfaces: [bridge, host, { ...container, sandbox: '/run/netns/other' }],
  };
  assert.match(
    complaint({ ...config, prevResult: elsewhere }),
    /Sandbox in prevResult \/run\/netns\/other doesn't match configured netns: \/run\/netns\/c1/,
  );
  const without = { ...prevResult, interfaces: [host, bridge, { ...container, name: 'eth1' }] };
  assert.match(
    complaint({ ...config, prevResult: without }),
    /prevResult lists no interface "eth0" in a sandbox/,
  );
});

test('everything that is wrong is said in one line', () => {
  const config = added(full());
  sh('ip -n c1 route del default; sysctl -qw net.ipv4.ip_forward=0; iptables -t nat -F');
  const said = complaint(config);
  for (const part of [/Expected Route/, /forwarding is off/, /masquerading is not complete/])
    assert.match(said, part);
  assert.not.match(said, /\n/);
});

test('a problem that passes by itself is none: forwarding comes back while CHECK looks', async () => {
  writeFileSync('/run/config.json', JSON.stringify(added(full())));
  const codes: unknown[] = [];
  for (let attempt = 1; attempt <= 10 && codes.at(-1) !== 0; attempt++)
    codes.push(await checkDuringTrouble());
  assert.is(codes.at(-1), 0, `exit codes ${codes.join()}`);
});

/** Exit code of a CHECK that finds forwarding off, which comes back once it has looked; it waits 0.2 s for that. */
async function checkDuringTrouble(): Promise<unknown> {
  sh('sysctl -qw net.ipv4.ip_forward=0; rm -f /run/trace');
  const watch = 'strace -o /run/trace -e trace=openat -P /proc/sys/net/ipv4/ip_forward';
  const running = spawn('sh', ['-c', `exec ${watch} ${executable('bridge')} < /run/config.json`], {
    env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', ...variables(c1), CNI_COMMAND: 'CHECK' },
    stdio: 'ignore',
  });
  const ended = new Promise((resolve) => running.on('close', resolve));
  const hasLooked = (): boolean => readFileSync('/run/trace', { flag: 'a+' }).includes('ip_forward');
  for (const began = Date.now(); !hasLooked() && Date.now() < began + 20_000;)
    await new Promise((resolve) => setTimeout(resolve, 1));
  assert.is(readSysctl('net/ipv4/ip_forward'), '0', 'it has seen the problem');
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1');
  return ended;
}

test('a node whose defaults changed since ADD, or cannot be read, keeps its healthy networks', () => {
  const config = added(full());
  sh(`mkdir -p /etc/weft; echo '{"backend": "nftables"}' > /etc/weft/weft.json`);
  check(config);
  sh('echo nonsense > /etc/weft/weft.json');
  check(config);
  sh('iptables -t nat -F');
  assert.match(complaint(config), /masquerading is not complete/);
});

test('a policy-routing plugin moved the routes to a table of its own', () => {
  const config = added(full());
  sh(`
    ip -n c1 route del default
    ip -n c1 route add default via 10.88.0.1 dev eth0 table 100
    ip -n c1 rule add from 10.88.0.2 lookup 100
  `);
  check(config);
});

test('routes and rules that others added do not matter', () => {
  const config = added(full());
  sh(`
    ip -n c1 route add 192.0.2.0/24 via 10.88.0.9
    ip -n c1 addr add 10.88.7.7/16 dev eth0
    iptables -t nat -I POSTROUTING -s 10.88.0.2 -d 203.0.113.0/24 -j ACCEPT
    ip link set br0 promisc on
    bridge link set dev ${config.prevResult.interfaces[1]?.name} learning off
  `);
  check(config);
});

test('CHECK of one of two interfaces minds its own', () => {
  const config = added(full());
  const second = full({ ipam: ipam(DUAL, { routes: [] }) });
  const prevResult = succeed('bridge', 'ADD', { ...c1, ifname: 'net1' }, second);
  check(config);
  check({ ...second, prevResult }, { ifname: 'net1' });
  sh('ip -n c1 link set net1 down');
  check(config);
  assert.match(complaint({ ...second, prevResult }, { ifname: 'net1' }), /interface net1 is down/);
});

test('a namespace that is gone is error 8', () => {
  const config = added(full());
  sh('ip netns del c1');
  assert.is(fail('bridge', 'CHECK', c1, config).code, 8);
  assert.is(link('br0')?.ifname, 'br0');
  const outcome = runPluginProcess('bridge', { command: 'CHECK', env: variables(c1), stdin: config });
  assert.is(outcome.stderr, '');
});

test.run();
