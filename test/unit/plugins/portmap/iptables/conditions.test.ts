import * as assert from 'uvu/assert';
import { suite } from '../../../../support/suite.ts';
import { checkConditions, readConditions } from '../../../../../plugins/portmap/iptables/conditions.ts';

const test = suite('conditions of port mappings in iptables’ language');
const words = (line: string): string[] => line.split(' ');

test('none make one rule without any', () => {
  assert.equal(readConditions('ipv4', []), [{}]);
});

test('are spelled as iptables prints them', () => {
  assert.equal(readConditions('ipv4', words('! --source 10.1.2.3/255.255.0.0 -d 192.0.2.1 -i eth0')), [
    {
      source: { value: '10.1.0.0/16', negated: true },
      destination: { value: '192.0.2.1/32' },
      inInterface: { value: 'eth0' },
    },
  ]);
  assert.equal(readConditions('ipv6', words('-s FD00:0::1/64')), [{ source: { value: 'fd00::/64' } }]);
  assert.equal(readConditions('ipv4', words('-s 0.0.0.0/0')), [{}], 'what every packet has is no condition');
});

test('lists of addresses make a rule for each', () => {
  const found = readConditions('ipv4', words('-s 10.0.0.0/8,192.0.2.1 -d 10.1.0.0/16,10.2.0.0/16'));
  assert.equal(
    found.map(({ source, destination }) => `${source?.value} ${destination?.value}`),
    [
      '10.0.0.0/8 10.1.0.0/16',
      '10.0.0.0/8 10.2.0.0/16',
      '192.0.2.1/32 10.1.0.0/16',
      '192.0.2.1/32 10.2.0.0/16',
    ],
  );
});

test('matches that are not known keep their words', () => {
  assert.equal(readConditions('ipv4', words('-m set --match-set a src -s 10.0.0.1')), [
    {
      source: { value: '10.0.0.1/32' },
      matches: [{ kind: 'rawArgs', args: words('-m set --match-set a src') }],
    },
  ]);
});

test('may not do anything but narrow down', () => {
  for (const line of [
    '-s 10.0.0.1 -j ACCEPT',
    '-t filter',
    '-p tcp',
    '-s fd00::1',
    '-s host',
    '--bogus x',
    '-s 10.0.0.1/33',
  ]) {
    assert.is(checkConditions('conditionsV4', words(line)).length, 1, line);
  }
  assert.is(checkConditions('conditionsV4', ['-m', 'comment', '--comment', 'a\nCOMMIT']).length, 1);
  assert.equal(checkConditions('conditionsV6', words('! -s fd00::/8 -m mark --mark 1')), []);
});

test.run();
