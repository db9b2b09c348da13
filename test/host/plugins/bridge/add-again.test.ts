import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { fail, succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  cleanHost,
  DUAL,
  hostState,
  ip,
  ipam,
  link,
  makeNamespace,
  network,
  sh,
  startHelper,
} from './host.ts';

const test = suite('bridge ADD: what is there already');
test.beforeEach(cleanHost);
test.after(cleanHost);

const add = (config: object, id = 'cont1', own: object = {}): CniResult =>
  succeed('bridge', 'ADD', { id, netns: '/run/netns/c1', ...own }, config) as CniResult;

test("a foreign interface of that name is the reference's error; nothing is reserved or left", () => {
  makeNamespace('c1');
  sh('ip -n c1 link add eth0 type veth peer name other');
  const before = hostState();
  const error = fail('bridge', 'ADD', { id: 'cont1', netns: '/run/netns/c1' }, network());
  assert.match(
    error.msg,
    /^container veth name \("eth0"\) peer provided \("veth[0-9a-f]{8}"\) already exists$/,
  );
  assert.equal(hostState(), before);
  assert.ok(link('eth0', 'c1'));
});

test('an interface of another container in the same namespace is foreign, too', () => {
  makeNamespace('c1');
  add(network(), 'cont1');
  const before = hostState();
  const error = fail('bridge', 'ADD', { id: 'cont2', netns: '/run/netns/c1' }, network());
  assert.match(error.msg, /already exists/);
  assert.equal(hostState(), before);
});

test('an invalid namespace is reported, and nothing is left behind', () => {
  const before = hostState();
  const gone = fail('bridge', 'ADD', { id: 'cont1', netns: '/run/netns/nope' }, network());
  assert.equal(
    [gone.code, gone.msg],
    [
      8,
      'failed to open netns "/run/netns/nope": failed to Statfs "/run/netns/nope": no such file or directory',
    ],
  );
  const file = fail('bridge', 'ADD', { id: 'cont1', netns: '/etc/passwd' }, network());
  assert.is(file.code, 8);
  assert.match(file.msg, /unknown FS magic on "\/etc\/passwd"/);
  assert.equal(hostState(), before);
});

test('the same ADD again gives the same addresses and MAC on a new pair, and leaves one of everything', async () => {
  makeNamespace('c1');
  const config = network({ ipMasq: true, ipam: ipam(DUAL) });
  const first = add(config);
  const state = hostState();
  assert.equal(add(config), first);
  assert.equal(hostState(), state);
  await startHelper('echo.ts', 'c1');
  assert.match(await (await startHelper('probe.ts', undefined)).ask('10.88.0.2 1000'), / 10\.88\.0\.1$/);
});

test('ADD again in a new namespace while the old one lives on: the old pair goes, the address stays the same', async () => {
  makeNamespace('c1');
  const config = network({ ipam: ipam(DUAL) });
  const first = add(config);
  await startHelper('echo.ts', 'c1');
  sh('ip netns del c1');
  assert.ok(link(first.interfaces[1]?.name ?? ''), 'the old namespace is held by a process');
  makeNamespace('c1');
  const second = add(config);
  assert.equal(second.ips, first.ips);
  assert.is(ip('link show type veth').length, 1);
  await startHelper('echo.ts', 'c1');
  assert.match(await (await startHelper('probe.ts', undefined)).ask('10.88.0.2 1000'), / 10\.88\.0\.1$/);
});

test('a label of 40 digits network, 64 digits container and 15 digits interface fits; longer ids work as well', () => {
  makeNamespace('c1');
  const long = 'a'.repeat(250);
  const host = add(network(), long).interfaces[1]?.name ?? '';
  assert.is(link(host)?.ifalias, undefined);
  assert.equal(add(network(), long).interfaces[1]?.name, host);
  succeed('bridge', 'DEL', { id: long, netns: '/run/netns/c1' }, network());
  assert.is(link(host), undefined);
});

test.run();
