import * as assert from 'uvu/assert';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { fail, runPluginProcess, succeed, variables } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import { cacheResult, cleanHost, DUAL, ipam, makeNamespace, network, sh } from './host.ts';

const test = suite('bridge CHECK after a changed configuration', { limit: 60 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const c1 = { id: 'cont1', netns: '/run/netns/c1' };

/** What CHECK writes to stderr; it must succeed. */
function warningsOf(config: object): string {
  const { exitCode, stdout, stderr } = runPluginProcess('bridge', {
    command: 'CHECK',
    env: variables(c1),
    stdin: config,
  });
  assert.is(exitCode, 0, stdout);
  return stderr;
}

/** One changed key each; `damage` breaks what the key stands for, where ADD has set it up. */
const ROWS: readonly {
  key: string;
  change: Record<string, unknown>;
  before?: Record<string, unknown>;
  damage?: string;
  /** Not noticed without the configuration of ADD. */
  silent?: true;
}[] = [
  { key: 'hairpinMode', change: { hairpinMode: true }, damage: 'bridge link set dev HOST hairpin off' },
  { key: 'portIsolation', change: { portIsolation: true }, damage: 'bridge link set dev HOST isolated off' },
  { key: 'promiscMode', change: { promiscMode: true }, damage: 'ip link set br0 promisc off' },
  { key: 'ipMasq', change: { ipMasq: true }, damage: 'iptables -t nat -F; iptables -t nat -X' },
  { key: 'macspoofchk', change: { macspoofchk: true }, damage: 'nft delete table bridge nat' },
  {
    key: 'bridge',
    change: { bridge: 'br9' },
    damage: 'ip link set HOST nomaster',
  },
  { key: 'mtu', change: { mtu: 1400 }, silent: true },
  { key: 'vlan', change: { vlan: 7 } },
  { key: 'vlanTrunk', change: { vlanTrunk: [{ id: 8 }] } },
  { key: 'isGateway', before: { isGateway: false }, change: { isGateway: true }, silent: true },
  {
    key: 'ipMasqBackend',
    before: { ipMasq: true },
    change: { ipMasq: true, ipMasqBackend: 'nftables' },
    silent: true,
  },
  { key: 'enabledad', change: { enabledad: true }, silent: true },
  { key: 'forceAddress', change: { forceAddress: true }, silent: true },
  { key: 'ipam', change: { ipam: ipam(['10.99.0.0/16'], { dataDir: '/run/elsewhere' }) }, silent: true },
];

for (const { key, change, before = {}, damage, silent } of ROWS) {
  test(`"${key}" changed after ADD: a warning that names it`, () => {
    const config = network({ ipam: ipam(DUAL), ...before });
    makeNamespace('c1');
    const prevResult = succeed('bridge', 'ADD', c1, config) as CniResult;
    cacheResult(config, c1);
    assert.match(
      warningsOf({ ...config, ...change, prevResult }),
      new RegExp(`"${key}" has changed since ADD`),
    );
    if (silent) return;
    sh('rm -r /var/lib/cni/results');
    assert.match(warningsOf({ ...config, ...change, prevResult }), new RegExp(`"${key}"`));
  });

  if (damage !== undefined) {
    test(`"${key}" set at ADD, its effect removed: CHECK fails, also when the key is not set any more`, () => {
      const config = network({ ipam: ipam(DUAL), ...before });
      makeNamespace('c1');
      const prevResult = succeed('bridge', 'ADD', c1, { ...config, ...change }) as CniResult;
      cacheResult({ ...config, ...change }, c1);
      sh(damage.replaceAll('HOST', prevResult.interfaces[1]?.name ?? ''));
      const code = (own: object): number => fail('bridge', 'CHECK', c1, { ...own, prevResult }).code;
      assert.is(code({ ...config, ...change }), 999);
      assert.is(code(config), 999);
    });
  }
}

test('without a cached configuration, rules that are left show that ADD set masquerading up', () => {
  const config = network({ ipMasq: true });
  makeNamespace('c1');
  const prevResult = succeed('bridge', 'ADD', c1, config) as CniResult;
  sh('iptables -t nat -F');
  assert.match(fail('bridge', 'CHECK', c1, { ...config, prevResult }).msg, /masquerading is not complete/);
});

test.run();
