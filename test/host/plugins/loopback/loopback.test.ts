import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { errorOf, fail, runPluginProcess, succeed, variables } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';

/** The executable in real namespaces. */
const test = suite('loopback');

const NS = '/run/netns/pod';
const pod = { id: 'c1', netns: NS };
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });
const config = (cniVersion: string, more: object = {}): object => ({
  cniVersion,
  name: 'net',
  type: 'loopback',
  ...more,
});
const isUp = (): boolean => /<[^>]*\bUP\b[^>]*>/.test(ip('-n', 'pod', 'link', 'show', 'lo'));

test.beforeEach(() => {
  execFileSync('sh', ['-c', 'ip netns del pod 2>/dev/null || true; ip netns add pod']);
});

const LO = { name: 'lo', mac: '00:00:00:00:00:00', sandbox: NS };
const SHAPES: Record<string, object> = {
  '': { cniVersion: '0.1.0', ip4: { ip: '127.0.0.1/8' }, ip6: { ip: '::1/128' }, dns: {} },
  '0.1.0': { cniVersion: '0.1.0', ip4: { ip: '127.0.0.1/8' }, ip6: { ip: '::1/128' }, dns: {} },
  '0.2.0': { cniVersion: '0.2.0', ip4: { ip: '127.0.0.1/8' }, ip6: { ip: '::1/128' }, dns: {} },
};
for (const version of ['0.3.0', '0.3.1', '0.4.0']) {
  const ips = [
    { version: '4', interface: 0, address: '127.0.0.1/8' },
    { version: '6', interface: 0, address: '::1/128' },
  ];
  SHAPES[version] = { cniVersion: version, interfaces: [LO], ips, dns: {} };
}
for (const version of ['1.0.0', '1.1.0']) {
  const ips = [
    { interface: 0, address: '127.0.0.1/8' },
    { interface: 0, address: '::1/128' },
  ];
  SHAPES[version] = { cniVersion: version, interfaces: [LO], ips };
}

for (const [version, expected] of Object.entries(SHAPES)) {
  test(`ADD with cniVersion "${version}" brings lo up and prints the result of that version, also the second time`, () => {
    assert.not(isUp());
    assert.equal(succeed('loopback', 'ADD', pod, config(version)), expected);
    assert.ok(isUp());
    assert.equal(succeed('loopback', 'ADD', pod, config(version)), expected);
  });
}

test('traffic flows to 127.0.0.1 and ::1 afterwards, whatever CNI_IFNAME says', () => {
  succeed('loopback', 'ADD', { ...pod, ifname: 'eth7' }, config('1.0.0'));
  for (const address of ['127.0.0.1', '::1']) talkToSelf(address);
  assert.not.match(ip('-n', 'pod', 'link'), 'eth7');
});

test("the host's own lo is not touched", () => {
  const before = ip('-o', 'addr', 'show', 'lo') + ip('-o', 'link', 'show', 'lo');
  succeed('loopback', 'ADD', pod, config('1.0.0'));
  succeed('loopback', 'DEL', pod, config('1.0.0'));
  assert.is(ip('-o', 'addr', 'show', 'lo') + ip('-o', 'link', 'show', 'lo'), before);
});

test('without IPv6 in the namespace there is one address', () => {
  ip('netns', 'exec', 'pod', 'sysctl', '-qw', 'net.ipv6.conf.lo.disable_ipv6=1');
  const result = succeed('loopback', 'ADD', pod, config('1.0.0')) as { ips: unknown };
  assert.equal(result.ips, [{ interface: 0, address: '127.0.0.1/8' }]);
});

test('further loopback addresses are accepted, the first one is reported', () => {
  ip('-n', 'pod', 'addr', 'add', '127.0.0.9/8', 'dev', 'lo');
  const result = succeed('loopback', 'ADD', pod, config('1.0.0')) as { ips: { address: string }[] };
  assert.is(result.ips.length, 2);
  assert.match(result.ips[0]?.address ?? '', /^127\./);
});

test('an address on lo that is no loopback address is refused, and lo left as it was', () => {
  ip('-n', 'pod', 'addr', 'add', '10.1.2.3/32', 'dev', 'lo');
  const { code, msg } = fail('loopback', 'ADD', pod, config('1.0.0'));
  assert.equal([code, msg], [999, 'loopback interface found with non-loopback address "10.1.2.3/32"']);
  assert.not(isUp());
});

test('CNI_ARGS is not looked at', () => {
  succeed('loopback', 'ADD', { ...pod, args: 'none' }, config('1.0.0'));
});

test('a prevResult goes through, in its own version, and lo comes up all the same', () => {
  const prevResult = {
    cniVersion: '0.4.0',
    interfaces: [{ name: 'eth0', mac: '02:00:00:00:00:01', sandbox: NS }],
    ips: [{ version: '4', interface: 0, address: '10.0.0.2/24', gateway: '10.0.0.1' }],
    routes: [{ dst: '0.0.0.0/0', gw: '10.0.0.1' }],
    dns: { nameservers: ['10.0.0.53'] },
    'example.com/extra': [1, null],
  };
  assert.equal(succeed('loopback', 'ADD', pod, config('0.4.0', { prevResult })), prevResult);
  assert.ok(isUp());
});

test('DEL brings lo down; again, with an empty, missing or half-deleted namespace it has nothing to do', () => {
  succeed('loopback', 'ADD', pod, config('1.0.0'));
  assert.is(succeed('loopback', 'DEL', pod, config('1.0.0')), undefined);
  assert.not(isUp());
  succeed('loopback', 'DEL', pod, config('1.0.0'));
  succeed('loopback', 'DEL', { id: 'c1' }, config('1.0.0'));
  succeed('loopback', 'DEL', { id: 'c1', netns: '/run/netns/none' }, config('1.0.0'));
  succeed('loopback', 'DEL', { id: 'c1', netns: '/etc/hosts/none' }, config('1.0.0'));
});

test("DEL whose path is now another container's namespace leaves its lo up", () => {
  ip('-n', 'pod', 'link', 'set', 'lo', 'up');
  ip('-n', 'pod', 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'peer0');
  ip('-n', 'pod', 'link', 'set', 'eth0', 'up');
  succeed('loopback', 'DEL', { id: 'earlier', netns: NS }, config('1.0.0'));
  assert.ok(isUp());
  ip('-n', 'pod', 'link', 'del', 'eth0');
  succeed('loopback', 'DEL', { id: 'earlier', netns: NS }, config('1.0.0'));
  assert.not(isUp());
});

test('CHECK fails unless lo is up, and changes nothing', () => {
  const before = fail('loopback', 'CHECK', pod, config('1.0.0'));
  assert.equal([before.code, before.msg], [999, 'loopback interface is down']);
  assert.not(isUp());
  succeed('loopback', 'ADD', pod, config('1.0.0'));
  assert.is(succeed('loopback', 'CHECK', pod, config('1.0.0')), undefined);
});

test('ADD and CHECK with a missing path, and with one that is no namespace', () => {
  writeFileSync('/run/netns/plain', '');
  for (const command of ['ADD', 'CHECK']) {
    const missing = fail('loopback', command, { id: 'c1', netns: '/run/netns/none' }, config('1.0.0'));
    assert.is(missing.code, 8);
    assert.match(missing.msg, 'failed to Statfs "/run/netns/none": no such file or directory');
    const plain = fail('loopback', command, { id: 'c1', netns: '/run/netns/plain' }, config('1.0.0'));
    assert.is(plain.code, 8);
    assert.match(plain.msg, 'unknown FS magic on "/run/netns/plain"');
  }
});

test('GC and STATUS have nothing to do', () => {
  succeed('loopback', 'GC', { id: '' }, config('1.1.0', { 'cni.dev/valid-attachments': [] }));
  succeed('loopback', 'STATUS', { id: '' }, config('1.1.0'));
});

test("on the host's own namespace only with CNI_NETNS_OVERRIDE", () => {
  const own = { id: 'c1', netns: '/proc/self/ns/net' };
  for (const command of ['ADD', 'DEL']) assert.is(fail('loopback', command, own, config('1.0.0')).code, 8);
  const env = { ...variables(own), CNI_NETNS_OVERRIDE: 'true' };
  assert.is(runPluginProcess('loopback', { command: 'ADD', env, stdin: config('1.0.0') }).exitCode, 0);
});

test('a configuration that is no object, and one with a wrong prevResult, leave lo alone', () => {
  for (const stdin of ['[]', '{"name":"n","cniVersion":"1.0.0","prevResult":{"ips":[{"address":"x"}]}}']) {
    assert.is(errorOf(runPluginProcess('loopback', { command: 'ADD', env: variables(pod), stdin })).code, 6);
    assert.not(isUp());
  }
});

/** A TCP connection inside the namespace, from the address to itself; throws when it does not come about. */
function talkToSelf(address: string): void {
  const program = `const net = require('node:net');
    const server = net.createServer((socket) => socket.end('hello')).listen(0, '${address}', () =>
      net.connect(server.address().port, '${address}').on('data', (data) => process.exit(String(data) === 'hello' ? 0 : 1)));
    setTimeout(() => process.exit(1), 5000);`;
  ip('netns', 'exec', 'pod', process.execPath, '-e', program);
}

test.run();
