import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { mayDropForwarded, warnOfForwardDrops } from '../../../../shared/packetfilter/forward-warnings.ts';
import type { KnownPacket } from '../../../../shared/packetfilter/verdict/packet.ts';
import { run, sh } from '../../../support/variants.ts';

const test = suite('warnings of rules that drop forwarded packets');

const PUBLISHED: KnownPacket = {
  family: 'ip',
  outInterface: 'nomad',
  destination: '172.26.64.5',
  protocol: 'tcp',
  destinationPort: 80,
  state: 'new',
  translated: true,
};

function warnings(...packets: KnownPacket[]): string[] {
  const lines: string[] = [];
  warnOfForwardDrops(
    () => packets,
    (line) => lines.push(line),
    { subnets: ['172.26.64.0/20'] },
  );
  return lines;
}

test.afterEach(() => {
  for (const program of ['iptables-nft', 'iptables-legacy']) {
    sh(`${program} -P FORWARD ACCEPT`);
    sh(`${program} -F`);
    sh(`${program} -X`);
  }
  run('nft', 'add table inet own');
  run('nft', 'delete table inet own');
});

test('a host without rules, and the chains of the CNI plugins, can drop nothing', () => {
  assert.not(mayDropForwarded());
  for (const program of ['iptables-nft', 'iptables-legacy']) {
    sh(`${program} -N CNI-FORWARD`);
    sh(`${program} -A FORWARD -j CNI-FORWARD`);
    sh(`${program} -A CNI-FORWARD -d 172.26.64.5 -j ACCEPT`);
  }
  assert.not(mayDropForwarded());
  assert.equal(warnings(PUBLISHED), []);
});

for (const program of ['iptables-nft', 'iptables-legacy']) {
  const name = program === 'iptables-nft' ? 'iptables' : program;

  test(`${program}: policy DROP as Docker sets it; the command in the warning silences it`, () => {
    sh(`${program} -N DOCKER-USER`);
    sh(`${program} -A FORWARD -j DOCKER-USER`);
    sh(`${program} -A FORWARD -o docker0 -j ACCEPT`);
    sh(`${program} -P FORWARD DROP`);
    const [line = '', ...more] = warnings(PUBLISHED);
    assert.equal(more, []);
    assert.match(line, `chain FORWARD of ${name} drops tcp packets to 172.26.64.5:80 (policy `);
    const [, command = ''] = line.split('accept with: ');
    assert.is(command, `${name} -I FORWARD -m conntrack --ctstate DNAT --ctreplsrc 172.26.64.0/20 -j ACCEPT`);
    sh(command.replace(/^iptables /, 'iptables-nft '));
    assert.equal(warnings(PUBLISHED), []);
  });

  test(`${program}: a rule that rejects is named`, () => {
    sh(`${program} -A FORWARD -p tcp -m tcp --dport 22 -j ACCEPT`);
    sh(`${program} -A FORWARD -p tcp -m multiport --dports 80,443 -j REJECT`);
    const lines = warnings(PUBLISHED, { ...PUBLISHED, destinationPort: 8080 });
    assert.is(lines.length, 1);
    assert.match(lines[0] ?? '', /rule "-A FORWARD -p tcp -m multiport --dports 80,443 -j REJECT/);
    assert.equal(warnings({ ...PUBLISHED, destinationPort: 8080 }), []);
  });

  test(`${program}: what depends on something unknown is not reported`, () => {
    sh(`${program} -A FORWARD -m limit --limit 1/hour -j ACCEPT`);
    sh(`${program} -P FORWARD DROP`);
    assert.ok(mayDropForwarded());
    assert.equal(warnings(PUBLISHED), []);
  });
}

test('an inet table of another program, and several packets in one line', () => {
  run('nft', 'table inet own { chain pass { type filter hook forward priority 5; policy drop; }; }');
  const reply: KnownPacket = { family: 'ip', destination: '172.26.64.5', state: 'established' };
  assert.equal(warnings(PUBLISHED, reply), [
    'chain pass of table inet own drops tcp packets to 172.26.64.5:80 and 1 more (policy drop); accept with: ' +
      'nft insert rule inet own pass ct status dnat ct reply ip saddr 172.26.64.0/20 accept; ' +
      'nft insert rule inet own pass ip daddr 172.26.64.0/20 ct state established,related accept',
  ]);
});

test.run();
