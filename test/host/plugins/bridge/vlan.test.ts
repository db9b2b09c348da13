import * as assert from 'uvu/assert';
import { isCutOff, vlanProblems } from '../../../../plugins/bridge/check-vlans.ts';
import { wantedVlans } from '../../../../plugins/bridge/plan.ts';
import { vlanGatewayPair } from '../../../../plugins/bridge/vlan.ts';
import {
  addPortVlansRequest,
  decodePortVlans,
  deletePortVlansRequest,
} from '../../../../shared/kernel/rtnetlink/bridge-ports.ts';
import { createBridgeRequest } from '../../../../shared/kernel/rtnetlink/links.ts';
import type { CniResult } from '../../../../shared/cni/results.ts';
import { fail, runPluginProcess, succeed, variables } from '../../../support/plugin.ts';
import { suite } from '../../../support/suite.ts';
import {
  addressesOf,
  cleanHost,
  hostState,
  ipam,
  link,
  makeNamespace,
  network,
  readSysctl,
  sh,
  startHelper,
  succeeds,
} from './host.ts';

const test = suite('bridge: VLANs', { limit: 60 });
test.beforeEach(cleanHost);
test.after(cleanHost);

const c1 = { id: 'cont1', netns: '/run/netns/c1' };

/** A trunk written as a list of VLANs. */
const trunk = (...vlanTrunk: number[]): { vlan: number; vlanTrunk: number[] } => ({ vlan: 0, vlanTrunk });

test('what a port carries: its own VLAN untagged, the trunk tagged and in ranges, VLAN 1 native when it has none', () => {
  assert.equal(wantedVlans({ vlan: 0, vlanTrunk: undefined }), []);
  assert.equal(wantedVlans({ vlan: 100, vlanTrunk: undefined }), [{ vid: 100, pvid: true, untagged: true }]);
  assert.equal(wantedVlans(trunk(5, 10, 11, 12, 20)), [
    { vid: 1, pvid: true, untagged: true },
    { vid: 5 },
    { vid: 10, lastVid: 12 },
    { vid: 20 },
  ]);
  assert.equal(wantedVlans({ vlan: 10, vlanTrunk: [10, 11] }), [
    { vid: 10, pvid: true, untagged: true },
    { vid: 11 },
  ]);
  assert.equal(wantedVlans(trunk()), [{ vid: 1, pvid: true, untagged: true }]);
  const whole = wantedVlans(trunk(...Array.from({ length: 4094 }, (_, at) => at + 1)));
  assert.equal(whole, [
    { vid: 1, pvid: true, untagged: true },
    { vid: 2, lastVid: 4094 },
  ]);
});

/**
 * This project's machines have a kernel without VLAN filtering: what is sent is held against linux/if_bridge.h by hand.
 *   ifinfomsg { family 7, index 5 }  [26 AF_SPEC] [2 VLAN_INFO { u16 flags, u16 vid }] ...
 *   flags: 2 PVID, 4 UNTAGGED, 8 RANGE_BEGIN, 16 RANGE_END
 */
test('the messages: add to the port, range by range; delete what was there', () => {
  const head = '07000000' + '05000000' + '00000000' + '00000000';
  const add = addPortVlansRequest(5, wantedVlans(trunk(10, 11, 12)));
  assert.is(
    Buffer.from(add.body).toString('hex'),
    head + '1c001a00' + '08000200' + '06000100' + '08000200' + '08000a00' + '08000200' + '10000c00',
  );
  assert.is(add.type, 19, 'RTM_SETLINK');
  const remove = deletePortVlansRequest(5, [{ vid: 1, pvid: true, untagged: true }]);
  assert.is(Buffer.from(remove.body).toString('hex'), head + '0c001a00' + '08000200' + '00000100');
  assert.is(remove.type, 17, 'RTM_DELLINK');
  assert.equal(decodePortVlans(Buffer.from(add.body)), wantedVlans(trunk(10, 11, 12)));
});

test('a new bridge is asked to filter VLANs, others are not', () => {
  const filtering = Buffer.from([5, 0, 7, 0, 1]);
  const body = (vlanFiltering?: boolean): Buffer =>
    Buffer.from(
      createBridgeRequest({ name: 'br0', ...(vlanFiltering === undefined ? {} : { vlanFiltering }) }).body,
    );
  assert.ok(body(true).includes(filtering));
  assert.not.ok(body().includes(Buffer.from([5, 0, 7, 0])));
});

test('the gateway of a VLAN: a pair of the same name everywhere, with MACs that no other host has', () => {
  const [one, other] = [vlanGatewayPair('br0.100', 7), vlanGatewayPair('br0.100', 7)];
  assert.equal([one.name, one.master, one.peer.name], [other.name, 7, 'br0.100']);
  assert.is.not(vlanGatewayPair('br0.200', 7).name, one.name);
  assert.is.not(one.peer.mac, other.peer.mac);
  assert.match(one.mac ?? '', /^fe:/);
});

test('CHECK of VLANs: every missing one is named, more than wanted is no harm, the untagged one must be the native one', () => {
  const wanted = wantedVlans({ vlan: 7, vlanTrunk: [10, 11, 12] });
  const end = { name: 'veth0' };
  assert.equal(
    vlanProblems(
      [
        { vid: 7, pvid: true },
        { vid: 9, lastVid: 20 },
      ],
      wanted,
      end,
    ),
    [],
  );
  assert.equal(vlanProblems([{ vid: 7 }, { vid: 10 }, { vid: 12 }], wanted, end), [
    'veth0 does not carry VLAN 7, 11',
  ]);
});

test('a port is cut off if its bridge filters VLANs and it has none for untagged frames', () => {
  const bridge = (vlanFiltering: boolean) =>
    ({ bridge: { vlanFiltering } }) as Parameters<typeof isCutOff>[0];
  assert.ok(isCutOff(bridge(true), []));
  assert.ok(
    isCutOff(bridge(true), [
      { vid: 1, untagged: true },
      { vid: 5, lastVid: 9 },
    ]),
  );
  assert.not.ok(isCutOff(bridge(true), [{ vid: 100, pvid: true, untagged: true }]));
  assert.not.ok(isCutOff(bridge(false), []));
  assert.not.ok(isCutOff({ bridge: undefined }, []));
});

const filters = succeeds('ip link add weftprobe type bridge vlan_filtering 1 && ip link del weftprobe');

if (filters) withFiltering();
else withoutFiltering();

function withoutFiltering(): void {
  test.skip('VLANs with traffic', 'this kernel has no VLAN filtering for bridges');

  test('a kernel without VLAN filtering says so in the error, and nothing stays', () => {
    makeNamespace('c1');
    const before = hostState();
    for (const own of [{ vlan: 100 }, { vlanTrunk: [{ id: 100 }] }]) {
      const error = fail('bridge', 'ADD', c1, network(own));
      assert.is(error.code, 2);
      assert.match(error.msg, /failed to create bridge "br0"/);
      assert.match(error.details ?? '', /\(CONFIG_BRIDGE_VLAN_FILTERING\), which this one lacks/);
      assert.equal(hostState(), before);
    }
  });

  test('also where the bridge is there already, and the port is what cannot be done', () => {
    sh('ip link add br0 address 02:11:22:33:44:55 type bridge; ip link set br0 up');
    makeNamespace('c1');
    const before = hostState();
    const error = fail('bridge', 'ADD', c1, network({ vlan: 100, isGateway: false }));
    assert.is(error.code, 2);
    assert.match(error.msg, /failed to set the VLANs of veth[0-9a-f]{8}: .*EOPNOTSUPP/);
    assert.equal(hostState(), before);
    assert.ok(link('br0'));
  });
}

interface Port {
  readonly ifname: string;
  readonly vlans: readonly {
    readonly vlan: number;
    readonly vlanEnd?: number;
    readonly flags?: readonly string[];
  }[];
}

/** What bridge(8) shows of one port. */
function vlansOf(name: string): Port['vlans'] {
  const ports = JSON.parse(sh('bridge -j -compressvlans vlan show')) as Port[];
  const vlans = ports.find(({ ifname }) => ifname === name)?.vlans ?? [];
  // Some releases print an empty list where others print none.
  return vlans.map(({ flags = [], ...vlan }) => (flags.length === 0 ? vlan : { ...vlan, flags }));
}

function withFiltering(): void {
  const at = (number: number): { id: string; netns: string } => ({
    id: `cont${number}`,
    netns: makeNamespace(`c${number}`),
  });
  const add = (attachment: { id: string }, own: object): CniResult =>
    succeed('bridge', 'ADD', attachment, network(own as Record<string, unknown>)) as CniResult;
  const warningsOf = (command: string, attachment: { id: string; netns: string }, stdin: object): string => {
    const { exitCode, stdout, stderr } = runPluginProcess('bridge', {
      command,
      env: variables(attachment),
      stdin,
    });
    assert.is(exitCode, 0, stdout);
    return stderr;
  };
  const vlan = (id: number, own: object = {}): object => ({
    name: `net${id}`,
    vlan: id,
    ipam: ipam([`10.88.${id}.0/24`]),
    ...own,
  });

  test('one VLAN sees itself and its gateway, not the other', async () => {
    const results = [add(at(1), vlan(100)), add(at(2), vlan(100)), add(at(3), vlan(200))];
    const port = results[0]?.interfaces[1]?.name ?? '';
    assert.equal(vlansOf(port), [{ vlan: 100, flags: ['PVID', 'Egress Untagged'] }]);
    assert.equal(
      results.map(({ interfaces }) => interfaces[3]?.name),
      ['br0.100', 'br0.100', 'br0.200'],
    );
    assert.is(results[0]?.interfaces[3]?.mac, link('br0.100')?.address);
    assert.equal([addressesOf('br0'), addressesOf('br0.100')], [[], ['10.88.100.1/24']]);
    assert.is(readSysctl('net/ipv6/conf/br0.100/accept_dad'), '0');
    await startHelper('echo.ts', 'c2');
    await startHelper('echo.ts', undefined);
    const probe = await startHelper('probe.ts', 'c1');
    assert.match(await probe.ask('10.88.100.3 5000'), / 10\.88\.100\.2$/);
    assert.match(await probe.ask('10.88.100.1 5000'), / 10\.88\.100\.2$/);
    // The same address in the other VLAN, as if it were a neighbour there.
    sh('ip -n c3 addr add 10.88.100.9/24 dev eth0');
    await startHelper('echo.ts', 'c3');
    assert.is(await probe.ask('10.88.100.9 1500'), 'none');
  });

  test('a trunk carries its VLANs tagged, and VLAN 1 untagged; preserveDefaultVlan keeps VLAN 1', () => {
    const trunked = add(at(1), {
      isGateway: false,
      ipam: {},
      vlanTrunk: [{ id: 5 }, { minID: 10, maxID: 12 }],
    });
    assert.equal(vlansOf(trunked.interfaces[1]?.name ?? ''), [
      { vlan: 1, flags: ['PVID', 'Egress Untagged'] },
      { vlan: 5 },
      { vlan: 10, vlanEnd: 12 },
    ]);
    const kept = add(at(2), { isGateway: false, ipam: {}, vlan: 7, preserveDefaultVlan: true });
    assert.equal(vlansOf(kept.interfaces[1]?.name ?? ''), [
      { vlan: 1, flags: ['Egress Untagged'] },
      { vlan: 7, flags: ['PVID', 'Egress Untagged'] },
    ]);
  });

  test('CHECK, ADD again and DEL; the gateway of the VLAN stays, as the bridge does', () => {
    const first = at(1);
    const prevResult = add(first, vlan(100));
    const config = network(vlan(100) as Record<string, unknown>);
    succeed('bridge', 'CHECK', first, { ...config, prevResult });
    const port = prevResult.interfaces[1]?.name ?? '';
    const problem = (): string => fail('bridge', 'CHECK', first, { ...config, prevResult }).msg;
    sh(`bridge vlan del dev ${port} vid 100`);
    assert.is(problem(), `${port} does not carry VLAN 100`);
    // prevResult lists the gateway of VLAN 100: the port was in it.
    sh(`bridge vlan add dev ${port} vid 1 pvid untagged`);
    assert.is(problem(), `${port} does not carry VLAN 100`);
    sh(`bridge vlan del dev ${port} vid 1; bridge vlan add dev ${port} vid 100 pvid untagged`);
    succeed('bridge', 'CHECK', first, { ...config, prevResult });
    const gatewayPort = /^\S+ (\S+?)@br0\.100/m.exec(sh('ip -o link').replaceAll(': ', ' '))?.[1] ?? '';
    sh(`bridge vlan del dev ${gatewayPort} vid 100; ip link set br0.100 down`);
    assert.match(
      problem(),
      /gateway interface br0\.100 is down; the port of br0\.100 does not carry VLAN 100/,
    );
    sh(`bridge vlan add dev ${gatewayPort} vid 100 pvid untagged; ip link set br0.100 up`);
    succeed('bridge', 'CHECK', first, { ...config, prevResult });
    assert.equal(add(first, vlan(100)), prevResult);
    succeed('bridge', 'CHECK', first, { ...config, prevResult });
    succeed('bridge', 'DEL', first, config);
    assert.is(link(prevResult.interfaces[1]?.name ?? ''), undefined);
    assert.equal(addressesOf('br0.100'), ['10.88.100.1/24']);
  });

  test('CHECK of a port without a gateway in its VLAN: fails without any VLAN, warns of another one', () => {
    const own = { isGateway: false, ipam: {} };
    const first = at(1);
    const prevResult = add(first, vlan(7, own));
    const port = prevResult.interfaces[1]?.name ?? '';
    const config = network(vlan(7, own) as Record<string, unknown>);
    // Without a cached configuration, the network's may have changed.
    const changed = network(vlan(8, own) as Record<string, unknown>);
    assert.match(warningsOf('CHECK', first, { ...changed, prevResult }), /does not carry VLAN 8/);
    sh(`bridge vlan del dev ${port} vid 7`);
    for (const now of [config, changed])
      assert.match(fail('bridge', 'CHECK', first, { ...now, prevResult }).msg, /does not carry VLAN/);
  });

  test('a failed ADD takes the gateway of the VLAN back', () => {
    const first = at(1);
    const before = hostState();
    const routes = [{ dst: '192.0.2.0/24', gw: '172.16.0.1' }];
    fail(
      'bridge',
      'ADD',
      first,
      network(vlan(100, { ipam: ipam(['10.88.100.0/24'], { routes }) }) as Record<string, unknown>),
    );
    assert.equal(hostState(), before);
  });

  test('a bridge without VLAN filtering is an error that names it', () => {
    sh('ip link add br0 type bridge; ip link set br0 up');
    const own = network({ vlan: 5, isGateway: false, ipam: {} });
    assert.match(warningsOf('ADD', at(1), own), /bridge br0 has no VLAN filtering/);
  });
}

test.run();
