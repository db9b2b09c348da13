import * as assert from 'uvu/assert';
import { suite } from '../support/suite.ts';
import { sh, traces, useXtables } from './support/client-host.ts';
import { countdashOnce, RunningExample } from './support/example.ts';

/** The example on other hosts than the usual one. This one has nothing but its loopback, and iptables of the older kind. */
const test = suite('countdash on other hosts', { limit: 300 });

/** Down to what `ip netns` and `iptables` make on the way: the folder of namespaces and its mount, tables without rules. */
function untouched(): string {
  return sh(
    'nft -s list ruleset; ls -A /run; ls -d /etc/netns 2>/dev/null || true; grep -c /netns /proc/self/mountinfo || true',
  );
}

test('a fresh host, without ip netns or iptables ever called, is the same afterwards', () => {
  useXtables('nft');
  sh('rm -rf /run/mount');
  const before = untouched();
  assert.not.match(before, /^(table|netns$)/m);
  for (const options of [[], ['--dual-stack']]) {
    const { exitCode, output } = countdashOnce(...options);
    assert.is(exitCode, 0, output);
    assert.not.match(output, 'changed on this host');
    assert.is(untouched(), before);
  }
});

test('tables and namespaces that were there, or that came meanwhile, stay', async () => {
  sh('nft add table ip raw; ip netns add mine');
  const example = new RunningExample('--upstreams');
  await example.page();
  sh(`nft add table ip mangle
    nft add chain ip mangle OUTPUT '{ type route hook output priority mangle; policy accept; }'
    nft add rule ip mangle OUTPUT counter`);
  example.child.kill('SIGINT');
  assert.is(await example.ended, 0, example.output);
  assert.equal(sh('nft list tables | sort').trim().split('\n'), ['table ip mangle', 'table ip raw']);
  assert.match(sh('ip netns'), 'mine');
  assert.match(
    example.output,
    /changed on this host in the meantime, not by the example:[^]*left: .*ip mangle/,
  );
  sh('nft flush ruleset; ip netns del mine');
});

test('a host with iptables-legacy, and without any address but its loopback', () => {
  useXtables('legacy');
  sh('iptables -P FORWARD DROP');
  const before = traces();
  const { exitCode, output } = countdashOnce();
  assert.is(exitCode, 0, output);
  assert.match(output, /the page at 172\.27\.90\.1 port 9002/);
  assert.not.match(output, 'FAIL');
  assert.not.match(output, 'changed on this host');
  assert.is(traces(), before);
});

test('a host whose /sys shows another network namespace', () => {
  sh('mount -t tmpfs tmpfs /sys');
  const before = traces();
  const { exitCode, output } = countdashOnce('--upstreams');
  sh('umount /sys');
  assert.is(exitCode, 0, output);
  assert.is(traces(), before);
});

test('a host where the first subnet is taken', () => {
  sh('ip link add other type bridge; ip addr add 172.27.90.200/25 dev other; ip link set other up');
  const { exitCode, output } = countdashOnce('--upstreams');
  assert.is(exitCode, 0, output);
  assert.match(output, /connected with address 172\.27\.91\.2/);
});

test('an interface of our name that is not ours is refused, and stays', () => {
  sh('ip link add weft-demo0 type bridge');
  const { exitCode, output } = countdashOnce();
  assert.is(exitCode, 1);
  assert.match(
    output,
    /interface weft-demo0 exists and was not created by the example; if it is unused, delete it: ip link del weft-demo0/,
  );
  sh('ip link show weft-demo0');
});

test.run();
