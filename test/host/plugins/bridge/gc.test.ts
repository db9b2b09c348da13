import * as assert from 'uvu/assert';
import { runPluginProcess, succeed, variables } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  cleanHost,
  DUAL,
  hostState,
  ip,
  ipam,
  leases,
  makeNamespace,
  natRules,
  network,
  sh,
} from './host.ts';
import { trace } from '../../../support/steps.ts';

const test = suite('bridge GC and STATUS', { limit: 40 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const full = (own: Record<string, unknown> = {}): Record<string, unknown> =>
  network({ cniVersion: '1.1.0', ipMasq: true, macspoofchk: true, ipam: ipam(DUAL), ...own });
const at = (number: number): { id: string; netns: string } => ({
  id: `cont${number}`,
  netns: `/run/netns/c${number}`,
});
const none = { id: '' };

function populate(config: object, numbers: readonly number[]): void {
  for (const number of numbers) {
    makeNamespace(`c${number}`);
    succeed('bridge', 'ADD', at(number), config);
  }
}

for (const backend of ['iptables', 'nftables']) {
  test(`${backend}: what the runtime does not know any more goes, all else stays`, () => {
    const config = full({ ipMasqBackend: backend });
    const other = full({ name: 'net2', ipMasqBackend: backend });
    populate(config, [1]);
    succeed('bridge', 'ADD', { ...at(1), ifname: 'net1' }, { ...config, ipam: ipam(DUAL, { routes: [] }) });
    populate(other, [3]);
    const kept = hostState();
    populate(config, [2, 4]);
    // cont4's namespace died without a DEL: its pair went with it, its rules and leases did not.
    sh('ip netns del c4');
    sh('ip link add v0 type veth peer name v1; ip link set v0 alias "weft:net1"; ip link set v1 master br0');

    const valid = [
      { containerID: 'cont1', ifname: 'eth0' },
      { containerID: 'cont1', ifname: 'net1' },
    ];
    succeed('bridge', 'GC', none, { ...config, 'cni.dev/valid-attachments': valid });
    const labels = ip('link show type veth').flatMap(({ ifalias }) => ifalias ?? []);
    assert.equal(labels.sort(), [
      'weft:net1',
      'weft:net1/cont1/eth0',
      'weft:net1/cont1/net1',
      'weft:net2/cont3/eth0',
    ]);
    sh('ip link del v0');
    assert.equal(hostState(), kept);
    succeed('bridge', 'GC', none, { ...config, 'cni.dev/valid-attachments': valid });
    assert.equal(hostState(), kept);
  });
}

test('an empty list means that nothing is valid; the older spelling counts too; no list is no order', () => {
  populate(full(), [1]);
  const before = hostState();
  const outcome = runPluginProcess('bridge', { command: 'GC', env: variables(none), stdin: full() });
  assert.is(outcome.exitCode, 0);
  assert.match(outcome.stderr, /valid-attachments/);
  assert.equal(hostState(), before);
  succeed('bridge', 'GC', none, full({ 'cni.dev/attachments': [] }));
  assert.equal([leases(), natRules(4), natRules(6), ip('link show type veth')], [{}, [], [], []]);
});

test('STATUS: what the configuration needs and the kernel lacks is code 50', () => {
  const lacking = 'socket:error=EPROTONOSUPPORT';
  for (const own of [full(), full({ macspoofchk: false, ipMasqBackend: 'nftables' })]) {
    const { exitCode, stdout } = trace('bridge', 'STATUS', none, own, lacking);
    assert.is(exitCode, 1);
    assert.equal((JSON.parse(stdout) as { code: number }).code, 50);
    assert.match(stdout, /this kernel has no nf_tables/);
  }
  assert.is(trace('bridge', 'STATUS', none, full({ macspoofchk: false }), lacking).exitCode, 0);
  succeed('bridge', 'STATUS', none, full());
});

test.run();
