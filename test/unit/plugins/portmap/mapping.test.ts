import * as assert from 'uvu/assert';
import {
  contradictingMappings,
  HostPortIndex,
  type HostPorts,
  type PortMapping,
} from '../../../../plugins/portmap/mapping.ts';
import { configure } from '../../../../plugins/portmap/config.ts';
import { PortRanges } from '../../../../shared/packetfilter/port-ranges.ts';
import { parseAddress } from '../../../../shared/net/address.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('port mappings');

function mapping(hostPort: number, containerPort: number, range = 1, hostIP = ''): PortMapping {
  const hostAddress = parseAddress(hostIP);
  const families = hostAddress === undefined ? (['ipv4', 'ipv6'] as const) : [hostAddress.family];
  return { protocol: 'tcp', hostPort, containerPort, range, hostAddress, families };
}

test('a host port that two mappings forward to different container ports is a contradiction', () => {
  const cases: [PortMapping[], string[]][] = [
    [[mapping(80, 80), mapping(80, 80, 1, '192.0.2.1')], []],
    [[mapping(80, 8080), mapping(80, 81)], ['80/tcp to 8080 and 80/tcp to 81']],
    [[mapping(80, 80, 10), mapping(85, 85)], []],
    [[mapping(80, 80, 10), mapping(85, 99)], ['80-89/tcp to 80 and 85/tcp to 99']],
    [[mapping(80, 1, 1, '192.0.2.1'), mapping(80, 2, 1, '192.0.2.2')], []],
    [[mapping(80, 1, 1, '192.0.2.1'), mapping(80, 2, 1, '2001:db8::1')], []],
    [[mapping(80, 1, 1, '192.0.2.1'), mapping(80, 2)], ['192.0.2.1:80/tcp to 1 and 80/tcp to 2']],
    [
      [mapping(1, 1, 1000), mapping(10, 20, 5), mapping(900, 900), mapping(950, 1)],
      ['1-1000/tcp to 1 and 10-14/tcp to 20', '1-1000/tcp to 1 and 950/tcp to 1'],
    ],
  ];
  for (const [mappings, pairs] of cases) {
    const wanted = pairs.map((pair) => `two port mappings use the same host port: ${pair}`);
    assert.equal(contradictingMappings(mappings), wanted);
  }
});

test('agrees with a comparison of all pairs', () => {
  let seed = 42;
  const random = (below: number): number => (seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31) % below;
  for (let round = 0; round < 400; round++) {
    const mappings = Array.from({ length: 2 + random(6) }, () =>
      mapping(1 + random(30), 1 + random(3), 1 + random(8), ['', '', '192.0.2.1', '192.0.2.2'][random(4)]),
    );
    const contradicts = mappings.some((one, at) =>
      mappings.slice(0, at).some((other) => {
        const ports = (given: PortMapping): HostPorts => ({
          protocol: 'tcp',
          first: given.hostPort,
          last: given.hostPort + given.range - 1,
          address: given.hostAddress && String(given.hostAddress.value),
        });
        const meets = new HostPortIndex([ports(one)]).overlaps(ports(other));
        return meets && one.containerPort - one.hostPort !== other.containerPort - other.hostPort;
      }),
    );
    assert.is(contradictingMappings(mappings).length > 0, contradicts, JSON.stringify(mappings.map(String)));
  }
});

test('ranges of ports are searched for containing and for overlapping ones', () => {
  const ranges = new PortRanges([
    { first: 10, last: 20 },
    { first: 12, last: 13 },
    { first: 30, last: 30 },
  ]);
  for (const [first, last, contains, overlaps] of [
    [10, 20, true, true],
    [14, 20, true, true],
    [14, 21, false, true],
    [1, 9, false, false],
    [21, 29, false, false],
    [1, 100, false, true],
    [30, 30, true, true],
  ] as const) {
    assert.is(ranges.contains({ first, last }), contains, `${first}-${last}`);
    assert.is(ranges.overlaps({ first, last }), overlaps, `${first}-${last}`);
  }
});

test('as many mappings as there may be are validated at a cost that grows with their number', () => {
  const portMappings = Array.from({ length: 16_384 }, (_, at) => ({
    hostPort: 1 + at,
    containerPort: 1 + (at % 7),
    protocol: 'tcp',
  }));
  const configured = configure({ runtimeConfig: { portMappings } });
  assert.ok('settings' in configured);
  // Comparing all pairs takes more than a minute; the limit of a test is 20 s.
  assert.equal(contradictingMappings(configured.settings.mappings ?? []), []);
});

test('more mappings than any real list has are refused with a clear error', () => {
  const portMappings = Array.from({ length: 65_535 }, (_, at) => ({
    hostPort: 1 + at,
    containerPort: 80,
    protocol: 'tcp',
  }));
  const configured = configure({ runtimeConfig: { portMappings } });
  assert.ok('problems' in configured);
  assert.match(configured.problems.join(), /portMappings" must have at most 16384 entries; use "range"/);
  assert.ok(configured.problems.join('; ').length < 2_000);
});

test.run();
