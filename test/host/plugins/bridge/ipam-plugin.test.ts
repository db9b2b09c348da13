import { chmodSync, existsSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { binDir } from '../../../support/executables.ts';
import { fail, succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  addressesOf,
  cleanHost,
  hostState,
  ipam,
  leases,
  makeFolder,
  makeNamespace,
  network,
  sh,
} from './host.ts';

const test = suite('bridge: address management', { limit: 40 });
const BIN = '/run/bin';
test.before(() => void makeFolder(BIN));
test.beforeEach(() => {
  cleanHost();
  for (const file of ['calls', 'answer', 'fail'])
    rmSync(`/run/ipam.${file}`, { recursive: true, force: true });
});
test.after(cleanHost);

const c1 = { id: 'cont1', netns: '/run/netns/c1' };

/** An IPAM plugin of another make: keeps what it is called with, answers what /run/ipam.answer holds, fails as /run/ipam.fail says. */
function makeForeign(name: string): void {
  makeFolder('/run/ipam.calls');
  writeFileSync(
    `${BIN}/${name}`,
    `#!/bin/sh
echo "$CNI_COMMAND" >> /run/ipam.calls/log
env | sort > "/run/ipam.calls/$CNI_COMMAND.env"
cat > "/run/ipam.calls/$CNI_COMMAND.stdin"
if [ -e "/run/ipam.fail/$CNI_COMMAND" ]; then cat "/run/ipam.fail/$CNI_COMMAND"; exit 1; fi
[ "$CNI_COMMAND" = ADD ] && cat /run/ipam.answer
exit 0
`,
  );
  chmodSync(`${BIN}/${name}`, 0o755);
}

const calls = (): string[] =>
  existsSync('/run/ipam.calls/log') ? readFileSync('/run/ipam.calls/log', 'utf8').trim().split('\n') : [];

const answer = (document: object): void => writeFileSync('/run/ipam.answer', JSON.stringify(document));
const foreign = (own: Record<string, unknown> = {}): Record<string, unknown> =>
  network({ ipam: { type: 'acme-ipam' }, ...own });
const at = { ...c1, path: `/nowhere:${BIN}`, args: 'IgnoreUnknown=1;FOO=a=b' };
const ADDRESS = { cniVersion: '1.0.0', ips: [{ address: '10.77.0.9/24', gateway: '10.77.0.1' }] };

test('delegation: the very same stdin and environment, but for the command', () => {
  makeForeign('acme-ipam');
  makeNamespace('c1');
  answer({ ...ADDRESS, routes: [{ dst: '192.0.2.0/24' }], dns: { nameservers: ['192.0.2.53'] } });
  const text = JSON.stringify(foreign({ odd: { Key: [1, null, 'ü'] } }), null, 3);
  const config = JSON.parse(text) as object;
  const prevResult = succeed('bridge', 'ADD', at, config) as CniResult;
  assert.equal(prevResult.ips, [{ interface: 2, address: '10.77.0.9/24', gateway: '10.77.0.1' }]);
  assert.equal(prevResult.dns, { nameservers: ['192.0.2.53'] });
  assert.equal(addressesOf('eth0', 'c1'), ['10.77.0.9/24']);
  const full = { ...config, prevResult };
  succeed('bridge', 'CHECK', at, full);
  succeed('bridge', 'DEL', at, full);
  assert.equal(calls(), ['ADD', 'CHECK', 'DEL']);
  for (const [command, stdin] of [
    ['ADD', config],
    ['CHECK', full],
    ['DEL', full],
  ] as const) {
    assert.is(readFileSync(`/run/ipam.calls/${command}.stdin`, 'utf8'), JSON.stringify(stdin));
    const env = readFileSync(`/run/ipam.calls/${command}.env`, 'utf8').split('\n');
    for (const line of [
      `CNI_COMMAND=${command}`,
      'CNI_ARGS=IgnoreUnknown=1;FOO=a=b',
      'CNI_CONTAINERID=cont1',
      'CNI_IFNAME=eth0',
      'CNI_NETNS=/run/netns/c1',
      `CNI_PATH=/nowhere:${BIN}`,
    ]) {
      assert.ok(env.includes(line), `${command}: ${line}`);
    }
  }
});

test('the interface is there before IPAM is asked: dhcp works on it', () => {
  makeForeign('acme-ipam');
  sh(
    `sed -i 's/^cat >/ip -n c1 link show eth0 > "\\/run\\/ipam.calls\\/link" 2>\\&1\\ncat >/' ${BIN}/acme-ipam`,
  );
  makeNamespace('c1');
  answer(ADDRESS);
  succeed('bridge', 'ADD', at, foreign());
  assert.match(readFileSync('/run/ipam.calls/link', 'utf8'), /eth0@/);
});

test('the error of IPAM is the error of bridge, code, text and details; nothing is left', () => {
  makeForeign('acme-ipam');
  makeNamespace('c1');
  const before = hostState();
  makeFolder('/run/ipam.fail');
  const said = { cniVersion: '1.0.0', code: 117, msg: 'the pool is on holiday', details: 'until Monday' };
  writeFileSync('/run/ipam.fail/ADD', JSON.stringify(said));
  assert.equal(fail('bridge', 'ADD', at, foreign()), said);
  assert.equal(calls(), ['ADD', 'DEL']);
  assert.equal(hostState(), before);
});

test('whatever fails later, the addresses are given back', () => {
  makeForeign('acme-ipam');
  sh(
    'ip link add br0 address 02:11:22:33:44:55 type bridge; ip link set br0 up; ip addr add 10.1.1.1/24 dev br0',
  );
  makeNamespace('c1');
  const before = hostState();
  for (const bad of [
    ADDRESS,
    { ips: [] },
    { ips: [{ address: '10.77.0.1/24', gateway: '10.77.0.1' }] },
    { ips: [{ address: '10.77.0.9/24' }], routes: [{ dst: '192.0.2.0/24', gw: '172.16.0.1' }] },
  ]) {
    answer({ cniVersion: '1.0.0', ...bad });
    rmSync('/run/ipam.calls/log', { force: true });
    fail('bridge', 'ADD', at, foreign());
    assert.equal(calls(), ['ADD', 'DEL'], JSON.stringify(bad));
    assert.equal(hostState(), before);
  }
});

test('in process: a conflict on the bridge gives the lease back', () => {
  sh('ip link add br0 type bridge; ip link set br0 up; ip addr add 10.1.1.1/24 dev br0');
  makeNamespace('c1');
  assert.match(fail('bridge', 'ADD', c1, network()).msg, /already has an IP address/);
  assert.equal(leases(), {});
});

test('in process: a pool without addresses', () => {
  makeNamespace('c1');
  makeNamespace('c2');
  const small = network({ ipam: ipam([], { ranges: [[{ subnet: '10.88.0.0/30' }]] }) });
  succeed('bridge', 'ADD', c1, small);
  const before = hostState();
  const { msg } = fail('bridge', 'ADD', { id: 'cont2', netns: '/run/netns/c2' }, small);
  assert.match(msg, /no IP addresses available in range set/);
  assert.equal(hostState(), before);
});

test('a missing IPAM plugin fails ADD before anything is changed', () => {
  makeNamespace('c1');
  const before = hostState();
  const error = fail('bridge', 'ADD', { ...c1, path: '/nowhere:/nothing' }, foreign());
  assert.is(error.msg, 'failed to find plugin "acme-ipam" in path [/nowhere /nothing]');
  assert.equal(hostState(), before);
});

test("DEL does the rest and then reports IPAM's error", () => {
  makeForeign('acme-ipam');
  makeNamespace('c1');
  answer(ADDRESS);
  const config = foreign({ ipMasq: true });
  succeed('bridge', 'ADD', at, config);
  makeFolder('/run/ipam.fail');
  writeFileSync('/run/ipam.fail/DEL', JSON.stringify({ code: 11, msg: 'come back later' }));
  const error = fail('bridge', 'DEL', at, config);
  assert.equal([error.code, error.msg], [11, 'come back later']);
  assert.equal(addressesOf('eth0', 'c1'), []);
  assert.not.match(sh('iptables-save -t nat'), /cont1/);
});

test('STATUS asks IPAM; a missing one is an error', () => {
  makeForeign('acme-ipam');
  const config = foreign({ cniVersion: '1.1.0' });
  succeed('bridge', 'STATUS', at, config);
  assert.equal(calls(), ['STATUS']);
  makeFolder('/run/ipam.fail');
  writeFileSync('/run/ipam.fail/STATUS', JSON.stringify({ code: 50, msg: 'no server' }));
  assert.equal([fail('bridge', 'STATUS', at, config).code], [50]);
  assert.match(
    fail('bridge', 'STATUS', { ...at, path: '/nowhere' }, config).msg,
    /failed to find plugin "acme-ipam"/,
  );
  succeed('bridge', 'STATUS', at, network({ cniVersion: '1.1.0', ipam: {} }));
});

test('STATUS in process: an invalid range is code 7', () => {
  succeed('bridge', 'STATUS', c1, network({ cniVersion: '1.1.0' }));
  const broken = network({
    cniVersion: '1.1.0',
    ipam: { type: 'host-local', subnet: 'x', dataDir: '/run/cni' },
  });
  assert.is(fail('bridge', 'STATUS', c1, broken).code, 7);
});

test('our host-local is called in process, another one is run', () => {
  makeNamespace('c1');
  // Linked under its name: the very same file. CNI_PATH has nothing else.
  symlinkSync(`${binDir}/host-local`, `${BIN}/host-local`);
  writeFileSync('/run/config', JSON.stringify(network()));
  const environment = `CNI_COMMAND=ADD CNI_CONTAINERID=cont1 CNI_NETNS=/run/netns/c1 CNI_IFNAME=eth0 CNI_PATH=${BIN}`;
  sh(`${environment} strace -f -o /run/trace -e trace=execve ${binDir}/bridge < /run/config > /run/result`);
  assert.is(sh('grep -c "execve(" /run/trace').trim(), '1');
  rmSync(`${BIN}/host-local`);

  cleanHost();
  makeNamespace('c1');
  makeForeign('host-local');
  answer(ADDRESS);
  succeed('bridge', 'ADD', { ...c1, path: BIN }, network());
  assert.equal(calls(), ['ADD']);
  assert.equal(addressesOf('eth0', 'c1'), ['10.77.0.9/24']);
  rmSync(`${BIN}/host-local`);
});

test('a host-local that refuses what it knows already is asked again after a DEL', () => {
  makeForeign('host-local');
  makeNamespace('c1');
  answer(ADDRESS);
  makeFolder('/run/ipam.fail');
  writeFileSync(
    '/run/ipam.fail/ADD',
    JSON.stringify({ code: 999, msg: 'duplicate allocation is not allowed' }),
  );
  sh(`sed -i 's/^exit 0/rm -f \\/run\\/ipam.fail\\/ADD\\nexit 0/' ${BIN}/host-local`);
  succeed('bridge', 'ADD', { ...c1, path: BIN }, network());
  assert.equal(calls(), ['ADD', 'DEL', 'ADD']);
  rmSync(`${BIN}/host-local`);
});

test('GC and a request for one address reach IPAM', () => {
  makeNamespace('c1');
  succeed('bridge', 'ADD', { ...c1, args: 'IP=10.88.0.77' }, network());
  assert.equal(Object.keys(leases()), ['10.88.0.77']);
  const gc = network({ cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] });
  succeed('bridge', 'GC', c1, gc);
  assert.equal(leases(), {});
});

test.run();
