import * as assert from 'uvu/assert';
import { parsePortMapping, pluginInput, type Attachment } from '../../conflist/attachment.ts';
import { parseNetworkList } from '../../conflist/network-list.ts';
import { addNetwork, checkNetwork, deleteNetwork, type Runtime } from '../../conflist/runtime.ts';
import { PLUGINS, pluginNamed } from '../../plugins/index.ts';
import { binDir } from '../support/executables.ts';
import { runPluginProcess, variables } from '../support/plugin.ts';
import { suite } from '../support/suite.ts';
import { changes, NS, prepareHost, sh, state, succeeds } from './calls.ts';
import { CASES } from './cases.ts';

/**
 * DEL of a container that is gone, with a CNI_NETNS that leads to the namespace of a running one by now (a reused /proc/PID/ns/net):
 * nothing of the running one changes, in its namespace, on the host, or among tracked connections.
 */
const test = suite("conformance: DEL with another container's namespace", { limit: 60 });

const warnings: string[] = [];
const runtime: Runtime = {
  binDirs: [binDir],
  cacheDir: '/var/lib/cni',
  environment: process.env,
  warn: (line) => void warnings.push(line),
};
const running: Attachment = {
  containerId: 'running',
  netns: NS,
  ifname: 'eth0',
  args: [['CONSUL_IPTABLES_CONFIG', argument()]],
  capabilityArgs: { portMappings: [...parsePortMapping('9002:80'), ...parsePortMapping('9002:80/udp')] },
};

test.before(() => {
  // No address is tentative at first.
  sh('sysctl -qw net.ipv6.conf.default.accept_dad=0');
  prepareHost();
});

for (const backend of ['iptables', 'nftables']) {
  const plugins = PLUGINS.filter(({ name }) => name !== 'host-local').map(({ name }) => ({
    type: name,
    ...CASES[name].config,
    runtimeConfig: undefined,
    ...(name === 'bridge' ? { ipMasqBackend: backend } : { backend }),
  }));
  const list = parseNetworkList(JSON.stringify({ cniVersion: '1.0.0', name: 'nomad', plugins }), 'list');
  let address = '';
  let present: string[] = [];

  test(`${backend}: a container is running, with a connection`, () => {
    address = addNetwork(runtime, list, running).ips[0]?.address ?? '';
    sh(`conntrack -I -p udp -t 3000 -s 192.0.2.9 -d 192.0.2.1 --sport 40010 --dport 9002 \
      -r ${address.replace(/\/.*/, '')} -q 192.0.2.9 --reply-port-src 80 --reply-port-dst 40010`);
    checkNetwork(runtime, list, running);
    assert.equal(warnings, []);
    present = all();
  });

  for (const { name } of PLUGINS) {
    test(`${backend}: ${name}`, () => {
      const own = list.plugins.find(({ type }) => type === (name === 'host-local' ? 'bridge' : name));
      if (own === undefined) throw new Error(`the list has no ${name}`);
      const { capabilityArgs } = running;
      for (const result of [undefined, resultOf('172.26.64.77/20'), resultOf(address)]) {
        succeeds(
          runPluginProcess(name, {
            command: 'DEL',
            env: variables({ id: 'gone', netns: NS }),
            stdin: pluginInput(list, own, { prevResult: result, capabilityArgs }),
          }),
          JSON.stringify(result),
        );
      }
      assert.equal(changes(present, all()), []);
    });
  }

  test(`${backend}: the running container passes CHECK, and DEL removes it`, () => {
    checkNetwork(runtime, list, running);
    deleteNetwork(runtime, list, running);
    assert.equal(warnings, []);
    assert.not.match(state().join('\n'), 'running');
  });
}

test.run();

function argument(): string {
  return /CONSUL_IPTABLES_CONFIG=(.*)/.exec(pluginNamed('consul-tproxy')?.example.args ?? '')?.[1] ?? '';
}

/** The host, the namespace, and connections without the time that they have left. */
function all(): string[] {
  const connections = sh('conntrack -L -p udp 2>/dev/null | sed -n "s/.*\\(src=.* dport=9002 .*\\)/\\1/p"');
  assert.match(connections, 'src=192.0.2.9');
  return [...state(), connections];
}

/** What the runtime may have kept of the container that is gone. */
function resultOf(address: string) {
  return {
    interfaces: [{ name: 'eth0', sandbox: NS }],
    ips: [{ interface: 0, address }],
    routes: [],
    dns: {},
  };
}
