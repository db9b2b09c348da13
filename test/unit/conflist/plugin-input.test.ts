import * as assert from 'uvu/assert';
import { parseNetworkList } from '../../../conflist/network-list.ts';
import { pluginInput } from '../../../conflist/attachment.ts';
import { suite } from '../../support/suite.ts';

const test = suite('what a plugin reads');

const list = parseNetworkList(
  '{"cniVersion":"0.4.0","name":"nomad","plugins":[{"type":"alpha","z":{"b":1,"a":1.5,"big":12345678901}},' +
    '{"type":"beta","name":"own","capabilities":{"portMappings":true,"aliases":true,"mac":false},"snat":true}]}',
  'list',
);
const [alpha, beta] = list.plugins;
if (alpha === undefined || beta === undefined) throw new Error('two plugins');

const result = {
  interfaces: [{ name: 'eth0', mac: '0a:00:00:00:00:01', sandbox: '/var/run/netns/x' }],
  ips: [{ interface: 0, address: '10.1.0.2/24', gateway: '10.1.0.1' }],
  routes: [{ dst: '0.0.0.0/0' }],
  dns: {},
};
const portMappings = [{ HostPort: 9002, ContainerPort: 9002, Protocol: 'tcp', HostIP: '' }];

test('the first plugin has no prevResult; keys are sorted at every depth, numbers stay as written', () => {
  assert.is(
    pluginInput(list, alpha, { capabilityArgs: { portMappings } }),
    '{"cniVersion":"0.4.0","name":"nomad","type":"alpha","z":{"a":1.5,"b":1,"big":12345678901}}',
  );
});

// The text that libcni 1.3.0 gave to a plugin in this place, except for the order of the mapping's own keys, which is Go's.
test('the next gets prevResult in the version of the list, and the capabilities that it declares', () => {
  const input = pluginInput(list, beta, {
    prevResult: result,
    capabilityArgs: { portMappings, dns: {}, mac: 'x' },
  });
  const libcni =
    '{"capabilities":{"aliases":true,"mac":false,"portMappings":true},"cniVersion":"0.4.0","name":"nomad","prevResult":{"cniVersion":"0.4.0","dns":{},' +
    '"interfaces":[{"mac":"0a:00:00:00:00:01","name":"eth0","sandbox":"/var/run/netns/x"}],"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1",' +
    '"interface":0,"version":"4"}],"routes":[{"dst":"0.0.0.0/0"}]},"runtimeConfig":{"portMappings":[{"ContainerPort":9002,"HostIP":"","HostPort":9002,' +
    '"Protocol":"tcp"}]},"snat":true,"type":"beta"}';
  assert.is(input, libcni);
});

test("a capability argument of no plugin makes no runtimeConfig; the network name replaces the plugin's own", () => {
  const input = JSON.parse(pluginInput(list, beta, {})) as Record<string, unknown>;
  assert.is(input['name'], 'nomad');
  assert.not('runtimeConfig' in input);
  assert.not('prevResult' in input);
});

test('an empty list of ports is sent, as Nomad sends it', () => {
  const input = JSON.parse(pluginInput(list, beta, { capabilityArgs: { portMappings: [] } })) as Record<
    string,
    unknown
  >;
  assert.equal(input['runtimeConfig'], { portMappings: [] });
});

test.run();
