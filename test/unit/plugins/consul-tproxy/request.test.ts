/** What CONSUL_IPTABLES_CONFIG may look like, as Nomad sends it and as it may send it next. */
import * as assert from 'uvu/assert';
import { decodeRequest } from '../../../../plugins/consul-tproxy/request.ts';
import type { ProxyRequest } from '../../../../plugins/consul-tproxy/request.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('consul-tproxy: request');

const PASSWD =
  'root:x:0:0:root:/root:/bin/sh\nenvoy:x:101:101::/:/sbin/nologin\nenvoy:x:999:1::/:/bin/sh\nbroken:x:abc\n+::::::\n';
const SERVICES =
  '# comment\nssh\t\t22/tcp\nhttp 80/tcp www # alias\ndomain 53/udp\ndomain 53/tcp\nonly-udp 7/udp\n';
const MINIMAL = { ProxyUserID: '101', ProxyInboundPort: 20000 };

/** The request, and what was noticed. */
function decode(config: object | string): { request: ProxyRequest; notices: string[] } {
  const notices: string[] = [];
  const text = typeof config === 'string' ? config : JSON.stringify({ ...MINIMAL, ...config });
  const names = { passwd: () => PASSWD, services: () => SERVICES };
  return {
    request: decodeRequest('CONSUL_IPTABLES_CONFIG', text, names, (line) => notices.push(line)),
    notices,
  };
}

function problems(config: object | string): string {
  return thrown(() => decode(config)).message;
}

test("Nomad's own literal", () => {
  const literal =
    '{"ConsulDNSIP":"192.168.1.117","ConsulDNSPort":8600,"ProxyUserID":"101","ProxyInboundPort":9999,"ProxyOutboundPort":15001,"ExcludeInboundPorts":["9002"],"ExcludeOutboundPorts":null,"ExcludeOutboundCIDRs":null,"ExcludeUIDs":null,"NetNS":"/var/run/docker/netns/nonsense-ns","IptablesProvider":null}';
  assert.equal(decode(literal), {
    notices: [],
    request: {
      dns: { address: { family: 'ipv4', text: '192.168.1.117' }, port: 8600 },
      proxyUid: { first: 101, last: 101 },
      inboundPort: 9999,
      outboundPort: 15001,
      excludeInboundPorts: [{ first: 9002, last: 9002 }],
      excludeOutboundPorts: [],
      excludeOutboundCidrs: { ipv4: [], ipv6: [] },
      excludeUids: [],
    },
  });
});

test('keys in any case, unknown keys, the last of several, nulls', () => {
  const { request } = decode(
    '{"proxyuserid":"1","PROXYUSERID":"2","proxyInboundPort":1,"ProxyInboundPort":3,"Future":{"a":1},"ConsulDNSIP":null,"NftablesProvider":null}',
  );
  assert.equal([request.proxyUid.first, request.inboundPort, request.dns], [2, 3, undefined]);
});

test('null as a whole lacks everything', () => {
  assert.match(problems('null'), /ProxyUserID is required.*ProxyInboundPort is required/);
});

test('what Go refuses for an integer is refused', () => {
  for (const number of ['2e4', '20000.0', '1.5', '"20000"', 'true', '[]', '99999999999999999999']) {
    assert.match(
      problems(`{"ProxyUserID":"101","ProxyInboundPort":${number}}`),
      /"ProxyInboundPort" must be a whole number/,
      number,
    );
  }
});

test('trailing garbage, broken JSON, other types at the top', () => {
  assert.is(thrown(() => decode('{} {}')).code, 6);
  assert.is(thrown(() => decode('{foo}')).code, 6);
  assert.is(thrown(() => decode('')).code, 6);
  for (const text of ['[]', '"x"', '7', 'true']) assert.match(problems(text), /must be an object/);
});

test('ports: plain, with leading zeros, ranges in both spellings with open ends, services', () => {
  const texts = ['80', '08080', '8000:8010', '9000-9010', '60000:', ':5', 'ssh', 'www', '7'];
  assert.equal(
    decode({ ExcludeOutboundPorts: texts }).request.excludeOutboundPorts.map(
      ({ first, last }) => `${first}-${last}`,
    ),
    ['80-80', '8080-8080', '8000-8010', '9000-9010', '60000-65535', '0-5', '22-22', '7-7'],
    'http under two names is one port',
  );
});

test('ports: what means the same is one, the first keeps its place', () => {
  const found = decode({ ExcludeInboundPorts: ['10000', '9002', '010000', '9002:9002'] }).request
    .excludeInboundPorts;
  assert.equal(
    found.map(({ first }) => first),
    [10000, 9002],
  );
});

test('ports: "0" and "-1" are ignored with a warning', () => {
  const { request, notices } = decode({ ExcludeInboundPorts: ['0', '9001', '-1'] });
  assert.equal(request.excludeInboundPorts, [
    { first: 0, last: 0 },
    { first: 9001, last: 9001 },
  ]);
  assert.match(notices.join('\n'), /ignoring "0".*without `to`.*\n.*ignoring "-1".*with `to = -1`/);
});

test('ports: everything else is a problem', () => {
  for (const text of [
    '65536',
    '-2',
    '1-2-3',
    '5-1',
    '80,81',
    ' 80',
    '8o',
    '',
    '-',
    ':',
    'only-udp',
    'nothing',
    '0x50',
  ]) {
    assert.match(
      problems({ ExcludeInboundPorts: [text] }),
      /^invalid CONSUL_IPTABLES_CONFIG in CNI_ARGS: ExcludeInboundPorts: /,
      text,
    );
  }
});

test('users: numbers, ranges, names of the file; the first of a repeated name', () => {
  const uids = decode({
    ProxyUserID: 'envoy',
    ExcludeUIDs: ['0', 'root', '7-9', '4294967294', '007'],
  }).request;
  assert.equal(uids.proxyUid, { first: 101, last: 101 });
  assert.equal(
    uids.excludeUids.map(({ first, last }) => `${first}-${last}`),
    ['0-0', '7-9', '4294967294-4294967294', '7-7'],
  );
});

test('users: everything else is a problem', () => {
  for (const text of ['4294967295', '9-7', 'broken', 'no-such-user', '+', '-5', '1-', '', '1,2', 'envoy ']) {
    assert.match(
      problems({ ExcludeUIDs: [text] }),
      /^invalid CONSUL_IPTABLES_CONFIG in CNI_ARGS: ExcludeUIDs: /,
      text,
    );
  }
});

test('networks: masked, canonical, sorted out by family, bare addresses', () => {
  const texts = [
    '10.0.0.1/8',
    '10.9.9.9/8',
    '1.1.1.1',
    'FD00:0::1/8',
    '2001:db8::7',
    '::ffff:192.0.2.1',
    '::ffff:192.0.2.9/120',
    '0.0.0.0/0',
    '::/0',
  ];
  assert.equal(decode({ ExcludeOutboundCIDRs: texts }).request.excludeOutboundCidrs, {
    ipv4: ['10.0.0.0/8', '1.1.1.1/32', '192.0.2.1/32', '192.0.2.0/24', '0.0.0.0/0'],
    ipv6: ['fd00::/8', '2001:db8::7/128', '::/0'],
  });
});

test('networks: everything else is a problem', () => {
  for (const text of [
    '10.0.0.0/33',
    'fd00::/129',
    'example.org',
    '10.0.0',
    '010.0.0.1',
    'fe80::1%eth0',
    '10.0.0.0/',
    '/8',
    '',
  ]) {
    assert.match(
      problems({ ExcludeOutboundCIDRs: [text] }),
      /ExcludeOutboundCIDRs: each must be an address or a network/,
      text,
    );
  }
});

test('DNS: both, the address, the port, none', () => {
  assert.equal(decode({ ConsulDNSIP: 'FD00::0035', ConsulDNSPort: 8600 }).request.dns, {
    address: { family: 'ipv6', text: 'fd00::35' },
    port: 8600,
  });
  assert.equal(decode({ ConsulDNSIP: '::ffff:10.0.0.1' }).request.dns, {
    address: { family: 'ipv4', text: '10.0.0.1' },
    port: 0,
  });
  assert.equal(decode({ ConsulDNSPort: 8600 }).request.dns, { address: undefined, port: 8600 });
  assert.is(decode({ ConsulDNSIP: '', ConsulDNSPort: 0 }).request.dns, undefined);
});

test('DNS: the unspecified address and invalid ports are refused', () => {
  for (const ip of ['0.0.0.0', '::', 'consul', '10.0.0.1:53'])
    assert.match(problems({ ConsulDNSIP: ip }), /ConsulDNSIP must be an/, ip);
  for (const port of [-1, 65536])
    assert.match(problems({ ConsulDNSPort: port }), /ConsulDNSPort must be a port/);
});

test('ports of the proxy', () => {
  assert.is(decode({}).request.outboundPort, 15001);
  assert.is(decode({ ProxyOutboundPort: 21000 }).request.outboundPort, 21000);
  for (const port of [-1, 65536]) {
    assert.match(
      problems({ ProxyInboundPort: port, ProxyOutboundPort: port }),
      /ProxyInboundPort must be.*ProxyOutboundPort must be/,
    );
  }
});

test('problems of type and of value come in one error, a broken key is not called missing', () => {
  const message = problems({
    ProxyUserID: 101,
    ProxyInboundPort: '1',
    ExcludeUIDs: 'x',
    ExcludeInboundPorts: [80, '99999'],
    IptablesProvider: {},
  });
  assert.match(message, /^could not unmarshal CNI args: CONSUL_IPTABLES_CONFIG: /);
  for (const text of [
    '"ProxyUserID"',
    '"ProxyInboundPort"',
    '"ExcludeUIDs"',
    '"ExcludeInboundPorts[0]"',
    '"IptablesProvider"',
  ]) {
    assert.ok(message.includes(text), `${text}: ${message}`);
  }
  assert.not.match(message, /is required/);
});

test.run();
