import * as assert from 'uvu/assert';
import { joinArgs, parsePortMapping } from '../../../conflist/attachment.ts';
import { suite } from '../../support/suite.ts';
import { thrown } from '../../support/thrown.ts';

const test = suite('port mappings and CNI_ARGS');
const mapping = (HostPort: number, ContainerPort: number, Protocol: string, HostIP = '') => ({
  HostPort,
  ContainerPort,
  Protocol,
  HostIP,
});

const accepted: [text: string, mappings: object[]][] = [
  ['9002:9002/tcp', [mapping(9002, 9002, 'tcp')]],
  ['9002', [mapping(9002, 9002, 'tcp'), mapping(9002, 9002, 'udp')]],
  ['80:8080', [mapping(80, 8080, 'tcp'), mapping(80, 8080, 'udp')]],
  ['53/udp', [mapping(53, 53, 'udp')]],
  ['192.0.2.1:80:8080/sctp', [mapping(80, 8080, 'sctp', '192.0.2.1')]],
  ['127.0.0.1:80', [mapping(80, 80, 'tcp', '127.0.0.1'), mapping(80, 80, 'udp', '127.0.0.1')]],
  ['[::1]:80:8080/tcp', [mapping(80, 8080, 'tcp', '::1')]],
];
for (const [text, mappings] of accepted) {
  test(`${text} is read`, () => {
    assert.equal(parsePortMapping(text), mappings);
    assert.is(Object.keys(parsePortMapping(text)[0] ?? {}).join(), 'HostPort,ContainerPort,Protocol,HostIP');
  });
}

for (const text of ['', 'http', '0:80', '80:65536', '80:80/icmp', '1:2:3', '-1', '80/tcp/udp', '::1:80']) {
  test(`"${text}" is refused`, () => {
    assert.throws(() => parsePortMapping(text), /port|protocol/);
  });
}

test('CNI_ARGS are joined; what could not be read back is refused', () => {
  assert.is(
    joinArgs([
      ['A', '1'],
      ['B', 'x=y'],
    ]),
    'A=1;B=x=y',
  );
  assert.is(joinArgs([]), '');
  for (const pair of [
    ['A', '1;B=2'],
    ['A=B', '1'],
    ['', '1'],
  ] as const) {
    assert.is(thrown(() => joinArgs([pair])).code, 4);
  }
});

test.run();
