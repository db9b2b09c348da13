import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { fail, succeed } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { cleanHost, DUAL, ipam, makeNamespace, network, sh } from './host.ts';

const test = suite('bridge CHECK: what chained plugins added to the result', { limit: 60 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const c1 = { id: 'cont1', netns: '/run/netns/c1' };

test('an interface of another plugin, its gateway and its routes are not judged, this one is as ever', () => {
  makeNamespace('c1');
  const config = network({ ipMasq: true, ipam: ipam(DUAL) });
  const own = succeed('bridge', 'ADD', c1, config) as CniResult;
  sh(`
    ip -n c1 link add up0 type veth peer name far0
    ip -n c1 addr add 192.0.2.2/24 dev up0
    ip -n c1 link set far0 up
    ip -n c1 link set up0 up
    ip -n c1 route add 198.51.100.0/24 via 192.0.2.1
  `);
  const prevResult = {
    ...own,
    interfaces: [...own.interfaces, { name: 'up0', sandbox: c1.netns }],
    ips: [...own.ips, { address: '192.0.2.2/24', gateway: '192.0.2.1', interface: 3 }],
    routes: [...own.routes, { dst: '198.51.100.0/24', gw: '192.0.2.1' }],
  };
  succeed('bridge', 'CHECK', c1, { ...config, prevResult });

  sh('ip -n c1 route del 198.51.100.0/24');
  const error = fail('bridge', 'CHECK', c1, { ...config, prevResult });
  assert.match(error.msg, /Expected Route to 198\.51\.100\.0\/24 via 192\.0\.2\.1/);
});

test('a route through the own gateway must lead through the own interface', () => {
  makeNamespace('c1');
  const config = network({ isDefaultGateway: true, ipam: ipam(['10.88.0.0/16'], { routes: [] }) });
  const prevResult = succeed('bridge', 'ADD', c1, config);
  succeed('bridge', 'CHECK', c1, { ...config, prevResult });
  sh(`
    ip -n c1 link add up0 type veth peer name far0
    ip -n c1 link set up0 up
    ip -n c1 route replace default via 10.88.0.1 dev up0 onlink
  `);
  const error = fail('bridge', 'CHECK', c1, { ...config, prevResult });
  assert.match(error.msg, /Expected Route to 0\.0\.0\.0\/0 via 10\.88\.0\.1 on eth0 is missing/);
});

test.run();
