import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { errorOf, runPluginProcess, variables } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { addressesOf, cleanHost, hostState, ip, ipam, leases, link, network } from './host.ts';

const test = suite('bridge: container namespace and host namespace are one');
test.beforeEach(cleanHost);
test.after(cleanHost);

const config = network({ isGateway: false, ipam: ipam(['10.88.0.0/16'], { routes: [] }) });

function run(
  command: string,
  own: object,
  more: Record<string, string> = {},
): ReturnType<typeof runPluginProcess> {
  const env = { ...variables({ id: 'cont1', netns: '/proc/self/ns/net', ifname: 'foot0' }), ...more };
  return runPluginProcess('bridge', { command, env, stdin: own });
}

test('refused without CNI_NETNS_OVERRIDE, before anything is made', () => {
  const before = hostState();
  assert.is(errorOf(run('ADD', config)).code, 8);
  assert.equal(hostState(), before);
});

test('with CNI_NETNS_OVERRIDE=1: the host gets an interface on the bridge; CHECK, ADD again and DEL work', () => {
  const override = { CNI_NETNS_OVERRIDE: '1' };
  const added = run('ADD', config, override);
  assert.is(added.exitCode, 0, added.stdout);
  const prevResult = JSON.parse(added.stdout) as CniResult;
  assert.equal(addressesOf('foot0'), ['10.88.0.2/16']);
  assert.is(link('foot0')?.operstate, 'UP');
  assert.is(link(prevResult.interfaces[1]?.name ?? '')?.master, 'br0');

  const checked = run('CHECK', { ...config, prevResult }, override);
  assert.is(checked.exitCode, 0, checked.stdout);
  const again = run('ADD', config, override);
  assert.equal(JSON.parse(again.stdout), prevResult);
  assert.is(ip('link show type veth').length, 2);

  for (let twice = 0; twice < 2; twice++) assert.is(run('DEL', config, override).exitCode, 0);
  assert.equal([ip('link show type veth'), leases()], [[], {}]);
  assert.ok(link('br0'));
});

test.run();
