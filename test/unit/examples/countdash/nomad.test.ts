import * as assert from 'uvu/assert';
import {
  type Group,
  exampleList,
  iptablesConfig,
  nomadAttachment,
  nomadRemoval,
} from '../../../../examples/countdash/plan.ts';
import { readAsset } from '../../../../shared/assets.ts';
import { suite } from '../../../support/suite.ts';

const test = suite("Nomad's side of the example");

const dashboard: Group = {
  name: 'dashboard',
  service: 'count-dashboard',
  allocId: '9a8e0000-0000-0000-0000-000000000001',
  netns: 'nonsense-ns',
  ports: [
    { label: 'http', host: 9002, to: 9002, reserved: true },
    { label: 'connect-proxy-count-dashboard', host: 9999, to: 9999, reserved: false },
  ],
  appPort: 9002,
  proxyPort: 9999,
  virtualAddress: '240.0.0.2',
};
const dns = { address: '192.168.1.117', port: 8600 };

test("the rules wanted are the text that Nomad's own test expects", () => {
  assert.is(
    iptablesConfig(dashboard, dns),
    '{"ConsulDNSIP":"192.168.1.117","ConsulDNSPort":8600,"ProxyUserID":"101","ProxyInboundPort":9999,"ProxyOutboundPort":15001,' +
      '"ExcludeInboundPorts":["9002"],"ExcludeOutboundPorts":null,"ExcludeOutboundCIDRs":null,"ExcludeUIDs":null,' +
      '"NetNS":"/var/run/netns/nonsense-ns","IptablesProvider":null}',
  );
});

test('a group without static ports excludes none: null, not an empty list', () => {
  const api = { ...dashboard, ports: dashboard.ports.slice(1) };
  assert.match(iptablesConfig(api, dns), '"ExcludeInboundPorts":null');
});

test('each port comes twice under capitalised keys', () => {
  const { capabilityArgs } = nomadAttachment(dashboard, dns);
  assert.is(
    JSON.stringify(capabilityArgs['portMappings']),
    '[{"HostPort":9002,"ContainerPort":9002,"Protocol":"tcp","HostIP":""},{"HostPort":9002,"ContainerPort":9002,"Protocol":"udp","HostIP":""},' +
      '{"HostPort":9999,"ContainerPort":9999,"Protocol":"tcp","HostIP":""},{"HostPort":9999,"ContainerPort":9999,"Protocol":"udp","HostIP":""}]',
  );
});

test('CNI_ARGS hold what Nomad sends, in any order; DEL has none', () => {
  const attachment = nomadAttachment(dashboard, dns);
  assert.equal(attachment.args.map(([key]) => key).sort(), [
    'CONSUL_IPTABLES_CONFIG',
    'IgnoreUnknown',
    'NOMAD_ALLOC_ID',
    'NOMAD_GROUP_NAME',
    'NOMAD_JOB_ID',
    'NOMAD_NAMESPACE',
    'NOMAD_REGION',
  ]);
  assert.equal(
    [attachment.containerId, attachment.netns, attachment.ifname],
    [dashboard.allocId, '/var/run/netns/nonsense-ns', 'eth0'],
  );
  assert.equal(nomadRemoval(attachment).args, []);
  assert.not(nomadAttachment(dashboard, undefined).args.some(([key]) => key === 'CONSUL_IPTABLES_CONFIG'));
});

const TRANSPARENT = { upstreams: false, backend: undefined };
const MANUAL = { upstreams: true, backend: undefined };

test("the list is Nomad's but for name, bridge, subnets and lease folder", () => {
  const nomads = readAsset('conflist/nomad-tproxy.conflist');
  const expected = nomads
    .replace('"name": "nomad"', '"name": "weft-countdash"')
    .replace('"bridge": "nomad"', '"bridge": "weft-demo0"')
    .replace('172.26.64.0/20', '172.27.90.0/24')
    .replace('/var/run/cni', '/run/weft-countdash/leases');
  assert.is(`${exampleList(['172.27.90.0/24'], TRANSPARENT).text}\n`, expected);
  assert.equal(
    exampleList(['172.27.90.0/24'], MANUAL).plugins.map(({ type }) => type),
    ['loopback', 'bridge', 'firewall', 'portmap'],
  );
});

test('a backend goes where the list names none: firewall keeps what Nomad gives it', () => {
  const { plugins } = exampleList(['172.27.90.0/24'], { upstreams: false, backend: 'nftables' });
  assert.equal(
    plugins.map(({ type, raw }) => [type, raw['backend'], raw['ipMasqBackend']]),
    [
      ['loopback', undefined, undefined],
      ['bridge', undefined, 'nftables'],
      ['firewall', 'iptables', undefined],
      ['portmap', 'nftables', undefined],
      ['consul-cni', 'nftables', undefined],
    ],
  );
});

test('two subnets make it the dual-stack variant', () => {
  const ours = exampleList(['172.27.90.0/24', 'fd77::/64'], MANUAL).plugins[1]?.raw['ipam'] as Record<
    string,
    unknown
  >;
  assert.equal(ours['ranges'], [[{ subnet: '172.27.90.0/24' }], [{ subnet: 'fd77::/64' }]]);
  assert.equal(ours['routes'], [{ dst: '0.0.0.0/0' }, { dst: '::/0' }]);
});

test.run();
