import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import * as assert from 'uvu/assert';
import { encodeRequests, type NetlinkRequest } from '../../../../../shared/kernel/netlink/message.ts';
import { addAddressRequest } from '../../../../../shared/kernel/rtnetlink/addresses.ts';
import {
  createBridgeRequest,
  createVethRequest,
  deleteLinkRequest,
  getLinkRequest,
  setLinkRequest,
} from '../../../../../shared/kernel/rtnetlink/links.ts';
import {
  addPortVlansRequest,
  decodePortVlans,
  deletePortVlansRequest,
  setBridgePortRequest,
} from '../../../../../shared/kernel/rtnetlink/bridge-ports.ts';
import { prependRouteRequest } from '../../../../../shared/kernel/rtnetlink/routes.ts';
import { suite } from '../../../../support/suite.ts';

/**
 * Our encoders against the bytes that iproute2 6.1 hands to sendmsg(2), recorded per command in requests.golden.txt.
 * Sequence numbers are the recording's. Two fields are compared apart: where iproute2 changes a link it says RTM_NEWLINK (16), ours
 * RTM_SETLINK (19), which cannot create; and `ip route add` refuses an existing destination (NLM_F_EXCL), ours prepends.
 */
const test = suite('rtnetlink requests');
const ETH9 = 4;
const VETH1 = 5;

const goldens = new Map(
  readFileSync(resolve(import.meta.dirname, 'requests.golden.txt'), 'utf8')
    .trim()
    .split('\n\n')
    .map((entry) => entry.split('\n') as [string, ...string[]])
    .map(([command, ...bytes]) => [command, Buffer.from(bytes.join(''), 'hex')] as const),
);

function golden(command: string): Buffer {
  const bytes = goldens.get(command);
  if (bytes === undefined) throw new Error(`no recording of: ${command}`);
  return bytes;
}

function same(command: string, request: NetlinkRequest): void {
  const expected = golden(command);
  const actual = encodeRequests([request], expected.readUInt32LE(8));
  assert.is(actual.toString('hex'), expected.toString('hex'), command);
}

const covered: string[] = [];
function encodesAs(
  command: string,
  request: () => NetlinkRequest,
  own: { readonly type?: number; readonly flags?: number } = {},
): void {
  covered.push(command);
  test(command, () => {
    const made = request();
    if (own.type !== undefined) assert.is(made.type, own.type);
    if (own.flags !== undefined) assert.is(made.flags, own.flags);
    const type = own.type === undefined ? made.type : golden(command).readUInt16LE(4);
    const flags = own.flags === undefined ? made.flags : golden(command).readUInt16LE(6) & ~REQUEST_AND_ACK;
    same(command, { ...made, type, flags });
  });
}

/** NLM_F_REQUEST, NLM_F_ACK: added when the request is sent. */
const REQUEST_AND_ACK = 5;

const SETLINK = { type: 19 };
/** NLM_F_CREATE without NLM_F_EXCL. */
const PREPEND = { flags: 0x400 };

encodesAs('ip link add br0 address 02:11:22:33:44:55 mtu 1400 up type bridge', () =>
  createBridgeRequest({ name: 'br0', mac: '02:11:22:33:44:55', mtu: 1400, up: true }),
);
encodesAs('ip link add br1 type bridge vlan_filtering 1', () =>
  createBridgeRequest({ name: 'br1', vlanFiltering: true }),
);
encodesAs(
  'ip link add veth1 address 02:00:00:00:00:01 mtu 1400 master br0 up type veth peer name eth9 address 02:00:00:00:00:02 mtu 1400',
  () =>
    createVethRequest({
      name: 'veth1',
      mac: '02:00:00:00:00:01',
      mtu: 1400,
      master: 2,
      up: true,
      peer: { name: 'eth9', mac: '02:00:00:00:00:02', mtu: 1400 },
    }),
);
encodesAs('bridge link set dev veth1 hairpin on isolated off', () =>
  setBridgePortRequest(VETH1, { hairpin: true, isolated: false }),
);
encodesAs('bridge vlan add dev veth1 vid 100 pvid untagged', () =>
  addPortVlansRequest(VETH1, [{ vid: 100, pvid: true, untagged: true }]),
);
encodesAs('bridge vlan add dev veth1 vid 200-210', () =>
  addPortVlansRequest(VETH1, [{ vid: 200, lastVid: 210 }]),
);
encodesAs('bridge vlan del dev veth1 vid 200-210', () =>
  deletePortVlansRequest(VETH1, [{ vid: 200, lastVid: 210, pvid: true }]),
);
encodesAs('ip addr add 10.1.2.3/24 broadcast + dev eth9', () =>
  addAddressRequest({ index: ETH9, address: '10.1.2.3/24', broadcast: 'computed' }),
);
encodesAs('ip -6 addr add fd00::5/64 nodad dev eth9', () =>
  addAddressRequest({ index: ETH9, address: 'fd00::5/64', noDad: true, broadcast: 'computed' }),
);
encodesAs(
  'ip route add default via 10.1.2.1 dev eth9 metric 7 mtu 1300 advmss 1200',
  () =>
    prependRouteRequest({
      destination: '0.0.0.0/0',
      gateway: '10.1.2.1',
      link: ETH9,
      priority: 7,
      mtu: 1300,
      advmss: 1200,
    }),
  PREPEND,
);
encodesAs(
  'ip route add 10.9.0.0/16 dev eth9 src 10.1.2.3 table 1000',
  () => prependRouteRequest({ destination: '10.9.77.1/16', link: ETH9, source: '10.1.2.3', table: 1000 }),
  PREPEND,
);
encodesAs(
  'ip route add 10.10.0.0/16 via 192.168.5.1 dev eth9 onlink',
  () =>
    prependRouteRequest({ destination: '10.10.0.0/16', gateway: '192.168.5.1', link: ETH9, onLink: true }),
  PREPEND,
);
encodesAs('ip route prepend 10.10.0.0/16 via 10.1.2.1 dev eth9', () =>
  prependRouteRequest({ destination: '10.10.0.0/16', gateway: '10.1.2.1', link: ETH9 }),
);
encodesAs(
  'ip -6 route replace fd01::/64 via fd00::1 dev eth9',
  () => prependRouteRequest({ destination: 'fd01::/64', gateway: 'fd00::1', link: ETH9 }),
  PREPEND,
);
encodesAs('ip link set eth9 up', () => setLinkRequest(ETH9, { up: true }), SETLINK);
encodesAs('ip link set veth1 promisc on', () => setLinkRequest(VETH1, { promisc: true }), SETLINK);
encodesAs('ip link set dev veth1 down', () => setLinkRequest(VETH1, { up: false }), SETLINK);
encodesAs('ip link set dev veth1 name veth5', () => setLinkRequest(VETH1, { name: 'veth5' }), SETLINK);
encodesAs('ip link set dev veth5 alias hello', () => setLinkRequest(VETH1, { alias: 'hello' }), SETLINK);
encodesAs('ip link set dev veth5 nomaster', () => setLinkRequest(VETH1, { master: 0 }), SETLINK);
encodesAs('ip link del veth5', () => deleteLinkRequest(VETH1));

test('every recording is compared', () => {
  assert.equal(covered.sort(), [...goldens.keys()].sort());
});

test('the namespace of the peer is an attribute of the peer, after its name', () => {
  const body = createVethRequest({ name: 'a', peer: { name: 'b', namespaceFd: 77 } }).body;
  const peer = Buffer.from(
    '28000200' + '24000100' + '00'.repeat(16) + '0600030062000000' + '08001c004d000000',
    'hex',
  );
  assert.ok(Buffer.from(body).includes(peer));
});

test('a link is requested by name, without statistics', () => {
  const { body, type } = getLinkRequest('eth0');
  assert.is(type, 18);
  assert.is(
    Buffer.from(body).toString('hex'),
    '00'.repeat(16) + '08001d0008000000' + '0900030065746830' + '00000000',
  );
});

test('arp_notify is set by the change that brings the link up', () => {
  const { body } = setLinkRequest(4, { up: true, arpNotify: true });
  const parameter = '08001600' + '01000000';
  assert.is(
    Buffer.from(body).toString('hex'),
    '0000000004000000' + '01000000'.repeat(2) + '14001a00' + '10000200' + '0c000100' + parameter,
  );
});

test('a link that is given by name cannot be renamed: the attribute is in use', () => {
  assert.throws(
    () => setLinkRequest('veth1', { name: 'veth5' }),
    /can only be renamed \(to veth5\) by index/,
  );
});

test('flags to clear are in the mask only', () => {
  const flags = (change: { up?: boolean; promisc?: boolean }): [number, number] => {
    const body = Buffer.from(setLinkRequest(1, change).body);
    return [body.readUInt32LE(8), body.readUInt32LE(12)];
  };
  assert.equal(flags({ up: false, promisc: true }), [0x100, 0x101]);
  assert.equal(flags({ up: true, promisc: false }), [1, 0x101]);
  assert.equal(flags({}), [0, 0]);
});

test('invalid addresses are refused before anything is sent', () => {
  assert.throws(
    () => addAddressRequest({ index: 1, address: '10.0.0.1' }),
    /address with prefix length, got "10.0.0.1"/,
  );
  assert.throws(
    () => prependRouteRequest({ destination: '0.0.0.0/0', gateway: 'nowhere' }),
    /IP address, got "nowhere"/,
  );
  assert.throws(() => createBridgeRequest({ name: 'b', mac: '02:11' }), /MAC address, got "02:11"/);
});

test('port VLANs as a kernel with VLAN filtering lists them', () => {
  // linux/if_bridge.h: ifinfomsg { AF_BRIDGE, index 5 } [26 AF_SPEC] { PVID|UNTAGGED 1 } { RANGE_BEGIN 200 } { RANGE_END 210 } { 300 }
  const body = Buffer.from(
    '0700000005000000' +
      '0000000000000000' +
      '24001a00' +
      '0800020006000100' +
      '080002000800c800' +
      '080002001000d200' +
      '0800020000002c01',
    'hex',
  );
  assert.equal(decodePortVlans(body), [
    { vid: 1, pvid: true, untagged: true },
    { vid: 200, lastVid: 210 },
    { vid: 300 },
  ]);
});

test.run();
