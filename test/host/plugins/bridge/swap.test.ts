import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import * as assert from 'uvu/assert';
import { waitUntil } from '../../../../shared/kernel/deadline.ts';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { fail, succeed, variables, type Attachment } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  addressesOf,
  cleanHost,
  DUAL,
  hostState,
  ip,
  ipam,
  leases,
  link,
  makeNamespace,
  natRules,
  network,
  sh,
  startHelper,
} from './host.ts';
import { makeWorld } from './world.ts';

/** The reference's plugins, as Debian packages them (containernetworking-plugins 1.1.1), on the same host as ours. */
const REFERENCE = '/usr/lib/cni';
const test = suite('bridge: side by side with the reference', { limit: 60 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const c1 = { id: 'cont1', netns: '/run/netns/c1' };
const config = network({ cniVersion: '0.4.0', ipMasq: true, ipam: ipam(DUAL) });

/** A call of the reference's bridge, with the reference's host-local, that must succeed. */
function reference(command: string, attachment: Attachment, own: object): unknown {
  const { status, stdout, stderr } = spawnSync(`${REFERENCE}/bridge`, {
    env: {
      PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
      ...variables({ ...attachment, path: REFERENCE }),
      CNI_COMMAND: command,
    },
    input: JSON.stringify(own),
    encoding: 'utf8',
    timeout: 30_000,
  });
  assert.is(status, 0, `reference ${command}: ${stdout}${stderr}`);
  return stdout === '' ? undefined : JSON.parse(stdout);
}

function assertNothingLeft(): void {
  assert.equal(ip('link show type bridge_slave'), []);
  assert.equal(leases(), {});
  assert.equal([...natRules(4), ...natRules(6)], []);
}

function register(): void {
  test('what the reference made, our CHECK passes and our DEL removes', () => {
    makeNamespace('c1');
    const prevResult = reference('ADD', c1, config);
    succeed('bridge', 'CHECK', c1, { ...config, prevResult });
    succeed('bridge', 'DEL', c1, { ...config, prevResult });
    assertNothingLeft();
  });

  test("our DEL of the reference's without prevResult, without a namespace", () => {
    for (const before of ['true', 'ip netns del c1']) {
      makeNamespace('c1');
      reference('ADD', c1, config);
      sh(before);
      succeed('bridge', 'DEL', c1, config);
      // A namespace that is gone takes its interface with it, in the kernel's own time.
      waitUntil(5_000, () => ip('link show type bridge_slave').length === 0);
      assertNothingLeft();
      sh('ip netns del c1 || true');
    }
  });

  test("our DEL finds the reference's pair by prevResult where a process keeps the namespace alive", async () => {
    makeNamespace('c1');
    const prevResult = reference('ADD', c1, config);
    await startHelper('echo.ts', 'c1');
    sh('ip netns del c1');
    assert.is(ip('link show type veth').length, 1);
    succeed('bridge', 'DEL', c1, { ...config, prevResult });
    assertNothingLeft();
  });

  test("what we made, the reference's CHECK passes and its DEL removes", () => {
    makeNamespace('c1');
    const prevResult = succeed('bridge', 'ADD', c1, config);
    reference('CHECK', c1, { ...config, prevResult });
    reference('DEL', c1, { ...config, prevResult });
    assertNothingLeft();
  });

  test('both on one bridge with one store: addresses differ, they reach each other and the world', async () => {
    await makeWorld();
    for (const name of ['c1', 'c2', 'c3']) makeNamespace(name);
    const at = (number: number): Attachment => ({ id: `cont${number}`, netns: `/run/netns/c${number}` });
    reference('ADD', at(1), config);
    const mac = link('br0')?.address;
    succeed('bridge', 'ADD', at(2), config);
    reference('ADD', at(3), config);
    assert.equal(Object.keys(leases()).length, 6);
    assert.is(link('br0')?.address, mac);
    assert.equal(addressesOf('br0'), ['10.88.0.1/16', 'fd00:88::1/64']);
    await startHelper('echo.ts', 'c3');
    const probe = await startHelper('probe.ts', 'c2');
    assert.match(await probe.ask('10.88.0.4 1500'), / 10\.88\.0\.3$/);
    assert.match(await probe.ask('fd00:88::4 1500'), / fd00:88::3$/);
    assert.match(await probe.ask('192.0.2.2 1500'), / 192\.0\.2\.1$/);
    for (const number of [1, 2, 3]) succeed('bridge', 'DEL', at(number), config);
    assertNothingLeft();
  });

  test('ADD of ours over what the reference made for the same container: replaced, the same address', () => {
    makeNamespace('c1');
    const first = reference('ADD', c1, config) as CniResult;
    const second = succeed('bridge', 'ADD', c1, config) as CniResult;
    assert.equal(
      second.ips.map(({ address }) => address),
      first.ips.map(({ address }) => address),
    );
    assert.is(ip('link show type veth').length, 1);
    assert.is(link(second.interfaces[1]?.name ?? '')?.ifalias, 'weft:net1/cont1/eth0');
    succeed('bridge', 'DEL', c1, config);
    assertNothingLeft();
  });

  test('an interface of the reference for another container in the same namespace is not taken for a remainder', () => {
    makeNamespace('c1');
    reference('ADD', { ...c1, id: 'other' }, config);
    const before = hostState();
    assert.match(fail('bridge', 'ADD', c1, config).msg, /already exists/);
    assert.equal(hostState(), before);
  });

  test('their host-local under our bridge: the same again after a DEL in between, errors passed on', () => {
    makeNamespace('c1');
    const theirs = { ...c1, path: REFERENCE };
    succeed('bridge', 'ADD', theirs, config);
    succeed('bridge', 'ADD', theirs, config);
    assert.is(Object.keys(leases()).length, 2);
    assert.is(ip('link show type veth').length, 1);
    succeed('bridge', 'DEL', theirs, config);
    assertNothingLeft();
    const before = hostState();
    const broken = { ...config, ipam: { type: 'host-local', subnet: 'x', dataDir: '/run/cni' } };
    assert.match(fail('bridge', 'ADD', theirs, broken).msg, /invalid CIDR address: x/);
    assert.equal(hostState(), before);
  });

  test('their static and dhcp run under our bridge', () => {
    makeNamespace('c1');
    const fixed = {
      type: 'static',
      addresses: [{ address: '10.88.0.9/16', gateway: '10.88.0.1' }],
      routes: [{ dst: '0.0.0.0/0' }],
    };
    const own = { ...config, ipam: fixed };
    const prevResult = succeed('bridge', 'ADD', { ...c1, path: REFERENCE }, own);
    assert.equal(addressesOf('eth0', 'c1'), ['10.88.0.9/16']);
    succeed('bridge', 'CHECK', { ...c1, path: REFERENCE }, { ...own, prevResult });
    succeed('bridge', 'DEL', { ...c1, path: REFERENCE }, own);
    const before = hostState();
    // No daemon answers: its error is passed on, and nothing stays.
    assert.match(
      fail('bridge', 'ADD', { ...c1, path: REFERENCE }, { ...config, ipam: { type: 'dhcp' } }).msg,
      /dhcp\.sock/,
    );
    assert.equal(hostState(), before);
  });
}

if (existsSync(`${REFERENCE}/bridge`)) register();
else
  test.skip(
    'the reference beside ours',
    `${REFERENCE}/bridge is missing: install containernetworking-plugins`,
  );

test.run();
