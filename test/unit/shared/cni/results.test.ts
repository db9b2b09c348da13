import * as assert from 'uvu/assert';
import { parseJson } from '../../../../shared/config/json.ts';
import { parseResult, printResult, renderResult, type CniResult } from '../../../../shared/cni/results.ts';
import type { CniVersion } from '../../../../shared/cni/versions.ts';
import { suite } from '../../../support/suite.ts';
import { thrown } from '../../../support/thrown.ts';

const test = suite('cni: results');

const full: CniResult = {
  interfaces: [
    { name: 'nomad', mac: '02:00:00:00:00:01', mtu: 1500 },
    {
      name: 'eth0',
      mac: '02:00:00:00:00:02',
      mtu: 1450,
      sandbox: '/run/netns/a',
      socketPath: '/s',
      pciID: 'p',
    },
  ],
  ips: [
    { interface: 1, address: '172.26.64.5/20', gateway: '172.26.64.1' },
    { interface: 1, address: 'fd00::5/64', gateway: 'fd00::1' },
    { address: '172.26.64.6/20' },
  ],
  routes: [
    { dst: '0.0.0.0/0', gw: '172.26.64.1', mtu: 1400, advmss: 1360, priority: 10, table: 0, scope: 0 },
    { dst: '::/0' },
  ],
  dns: { nameservers: ['10.0.0.53'], domain: 'd', search: ['s'], options: ['o'] },
};

const text = (version: CniVersion, result: CniResult = full): string =>
  JSON.stringify(renderResult(version, result));

for (const version of ['1.0.0', '1.1.0'] as const) {
  test(`${version}: sorted keys, every member`, () => {
    assert.is(
      text(version),
      `{"cniVersion":"${version}",` +
        '"dns":{"domain":"d","nameservers":["10.0.0.53"],"options":["o"],"search":["s"]},' +
        '"interfaces":[{"mac":"02:00:00:00:00:01","mtu":1500,"name":"nomad"},' +
        '{"mac":"02:00:00:00:00:02","mtu":1450,"name":"eth0","pciID":"p","sandbox":"/run/netns/a","socketPath":"/s"}],' +
        '"ips":[{"address":"172.26.64.5/20","gateway":"172.26.64.1","interface":1},' +
        '{"address":"fd00::5/64","gateway":"fd00::1","interface":1},{"address":"172.26.64.6/20"}],' +
        '"routes":[{"advmss":1360,"dst":"0.0.0.0/0","gw":"172.26.64.1","mtu":1400,"priority":10,"scope":0,"table":0},{"dst":"::/0"}]}',
    );
  });
}

for (const version of ['0.3.0', '0.3.1', '0.4.0'] as const) {
  test(`${version}: struct order, the family in each address, no members of 1.1.0 in interfaces`, () => {
    assert.is(
      text(version),
      `{"cniVersion":"${version}",` +
        '"interfaces":[{"name":"nomad","mac":"02:00:00:00:00:01"},{"name":"eth0","mac":"02:00:00:00:00:02","sandbox":"/run/netns/a"}],' +
        '"ips":[{"version":"4","interface":1,"address":"172.26.64.5/20","gateway":"172.26.64.1"},' +
        '{"version":"6","interface":1,"address":"fd00::5/64","gateway":"fd00::1"},{"version":"4","address":"172.26.64.6/20"}],' +
        '"routes":[{"dst":"0.0.0.0/0","gw":"172.26.64.1","mtu":1400,"advmss":1360,"priority":10,"table":0,"scope":0},{"dst":"::/0"}],' +
        '"dns":{"nameservers":["10.0.0.53"],"domain":"d","search":["s"],"options":["o"]}}',
    );
  });
}

for (const version of ['0.1.0', '0.2.0'] as const) {
  test(`${version}: the first address of each family, its routes with dst and gw only`, () => {
    assert.is(
      text(version),
      `{"cniVersion":"${version}",` +
        '"ip4":{"ip":"172.26.64.5/20","gateway":"172.26.64.1","routes":[{"dst":"0.0.0.0/0","gw":"172.26.64.1"}]},' +
        '"ip6":{"ip":"fd00::5/64","gateway":"fd00::1","routes":[{"dst":"::/0"}]},' +
        '"dns":{"nameservers":["10.0.0.53"],"domain":"d","search":["s"],"options":["o"]}}',
    );
  });

  test(`a result without an address cannot be written in ${version}`, () => {
    const error = thrown(() => renderResult(version, { ...full, ips: [] }));
    assert.is(error.message, 'cannot convert: no valid IP addresses');
    assert.is(error.code, 999);
  });
}

test('empty members: dns is printed up to 0.4.0 and left out from 1.0.0 on', () => {
  const empty: CniResult = { interfaces: [], ips: [], routes: [], dns: {} };
  assert.is(text('0.4.0', empty), '{"cniVersion":"0.4.0","dns":{}}');
  assert.is(text('1.1.0', empty), '{"cniVersion":"1.1.0"}');
  assert.is(text('1.0.0', { ...empty, dns: { nameservers: [], domain: '' } }), '{"cniVersion":"1.0.0"}');
  const one = { ...empty, ips: [{ address: 'fd00::5/64' }] };
  assert.is(text('0.2.0', one), '{"cniVersion":"0.2.0","ip6":{"ip":"fd00::5/64"},"dns":{}}');
});

test('printed with four blanks and no line end', () => {
  const empty: CniResult = { interfaces: [], ips: [], routes: [], dns: {} };
  assert.is(printResult('0.4.0', empty), '{\n    "cniVersion": "0.4.0",\n    "dns": {}\n}');
});

for (const index of [2, -1, 0.5, 99]) {
  test(`an address that names interface ${index} of two never leaves the plugin`, () => {
    const bad = { ...full, ips: [{ address: '10.0.0.1/8', interface: index }] };
    for (const version of ['0.4.0', '1.0.0', '0.2.0'] as const) {
      assert.match(
        thrown(() => renderResult(version, bad)).message,
        `names interface ${index}, but there are 2`,
      );
    }
  });
}

for (const version of ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const) {
  test(`${version}: what was printed is read back`, () => {
    const back = parseResult(version, parseJson(printResult(version, full), 'test'));
    const older = version.startsWith('0');
    const bare = full.interfaces.map(({ name, mac, sandbox }) => ({
      name,
      ...(mac ? { mac } : {}),
      ...(sandbox ? { sandbox } : {}),
    }));
    assert.equal(back, older ? { ...full, interfaces: bare } : full);
  });
}

test('0.1.0, 0.2.0 are read: v4 before v6, routes appended, no interfaces', () => {
  const json = {
    cniVersion: '0.2.0',
    ip6: { ip: 'fd00::5/64', routes: [{ dst: '::/0', gw: 'fd00::1' }] },
    ip4: { ip: '10.0.0.5/24', gateway: '10.0.0.1', routes: [{ dst: '0.0.0.0/0' }] },
    dns: { nameservers: ['10.0.0.53'] },
  };
  assert.equal(parseResult('0.1.0', json), {
    interfaces: [],
    ips: [{ address: '10.0.0.5/24', gateway: '10.0.0.1' }, { address: 'fd00::5/64' }],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0', gw: 'fd00::1' }],
    dns: { nameservers: ['10.0.0.53'] },
  });
});

test('libcni\'s conversions: version "", capitalised keys, null, empty text', () => {
  const json = parseJson(
    '{"CNIVersion":"0.4.0","Interfaces":[{"Name":"lo","Mac":"","Sandbox":null,"mtu":0}],' +
      '"ips":[{"version":"","interface":0,"address":"127.0.0.1/8","gateway":""},{"version":"","interface":null,"address":"::1/128"}],' +
      '"routes":null,"dns":null}',
    'test',
  );
  assert.equal(parseResult('0.4.0', json), {
    interfaces: [{ name: 'lo' }],
    ips: [{ interface: 0, address: '127.0.0.1/8' }, { address: '::1/128' }],
    routes: [],
    dns: {},
  });
});

test('addresses become canonical; host bits stay', () => {
  const json = {
    ips: [{ address: 'FD00:0::0005/64', gateway: 'FD00::1' }, { address: '::ffff:10.0.0.1/120' }],
    routes: [{ dst: '10.1.2.3/8' }],
  };
  const result = parseResult('1.0.0', json);
  assert.equal(result.ips, [{ address: 'fd00::5/64', gateway: 'fd00::1' }, { address: '10.0.0.1/24' }]);
  assert.equal(result.routes, [{ dst: '10.1.2.3/8' }]);
});

test('interface indexes that point nowhere are left out', () => {
  const ips = [2, -1, 1].map((index) => ({ address: '10.0.0.1/8', interface: index }));
  const result = parseResult('1.0.0', { interfaces: [{ name: 'a' }, { name: 'b' }], ips });
  assert.equal(
    result.ips.map((ip) => ip.interface),
    [undefined, undefined, 1],
  );
});

test('unknown keys go through unchanged, at the top and in entries', () => {
  const raw =
    '{"cniVersion":"1.0.0","x.y":{"deep":[1.50,{"a":null}]},"interfaces":[{"name":"a","color":"red"}]}';
  const result = parseResult('1.0.0', parseJson(raw, 'test'));
  assert.is(
    text('1.0.0', result),
    '{"cniVersion":"1.0.0","interfaces":[{"color":"red","name":"a"}],"x.y":{"deep":[1.50,{"a":null}]}}',
  );
  assert.is(
    text('0.4.0', result),
    '{"cniVersion":"0.4.0","interfaces":[{"name":"a","color":"red"}],"dns":{},"x.y":{"deep":[1.50,{"a":null}]}}',
  );
});

test('a version inside one class is read, of another class refused, absent assumed', () => {
  for (const [own, given] of [
    ['1.1.0', '1.0.0'],
    ['1.0.0', '1.1.0'],
    ['0.4.0', '0.3.0'],
    ['0.1.0', '0.2.0'],
    ['0.4.0', ''],
    ['1.0.0', undefined],
  ] as const) {
    assert.ok(parseResult(own, { cniVersion: given }), `${own} ${given}`);
  }
  for (const [own, given] of [
    ['1.0.0', '0.4.0'],
    ['0.4.0', '1.0.0'],
    ['0.2.0', '0.3.0'],
    ['0.4.0', '0.2.0'],
    ['1.1.0', '9.9.9'],
  ] as const) {
    const error = thrown(() => parseResult(own, { cniVersion: given }, 'prevResult'));
    assert.is(error.code, 6);
    assert.is(error.message, `prevResult has cniVersion "${given}", which cannot be read as version ${own}`);
  }
});

test('what cannot be read is named', () => {
  const cases: [unknown, string][] = [
    [5, 'invalid prevResult: the document must be an object, got 5 (number)'],
    [{ ips: [{}] }, 'invalid prevResult: "ips[0].address" is required'],
    [
      { ips: [{ address: '10.0.0.1' }] },
      'invalid prevResult: "ips[0].address" must be an address with a prefix length like "10.0.0.2/24", got "10.0.0.1"',
    ],
    [
      { ips: [{ address: '010.0.0.1/8' }] },
      'invalid prevResult: "ips[0].address" must be an address with a prefix length like "10.0.0.2/24", got "010.0.0.1/8"',
    ],
    [
      { ips: [{ address: '10.0.0.1/8', gateway: 'x' }] },
      'invalid prevResult: "ips[0].gateway" must be an IP address like "10.0.0.1", got "x"',
    ],
    [
      { ips: [{ address: '10.0.0.1/8', interface: '0' }] },
      'invalid prevResult: "ips[0].interface" must be a whole number, got "0" (string)',
    ],
    [{ interfaces: [null] }, 'invalid prevResult: "interfaces[0]" must be an object, got null'],
    [
      { routes: [{ dst: 'default' }] },
      'invalid prevResult: "routes[0].dst" must be an address with a prefix length like "10.0.0.2/24", got "default"',
    ],
    [{ dns: { nameservers: 'x' } }, 'invalid prevResult: "dns.nameservers" must be a list, got "x" (string)'],
  ];
  for (const [json, message] of cases) {
    const error = thrown(() => parseResult('1.0.0', json, 'prevResult'));
    assert.is(error.message, message);
    assert.is(error.code, 6);
  }
});

test.run();
