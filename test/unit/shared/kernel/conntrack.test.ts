import * as assert from 'uvu/assert';
import { listed, type Flows } from '../../../../shared/kernel/conntrack.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('conntrack list');

const udp = (originalPort: number, lastPort = originalPort): Flows => ({
  protocol: 'udp',
  originalPort,
  lastPort,
});

const LIST = [
  'ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.9 dst=10.0.0.1 sport=50000 dport=8080 src=10.88.0.2 dst=10.0.0.9 sport=80 dport=50000 [ASSURED] mark=0 zone=0 use=2',
  'ipv4     2 udp      17 29 src=10.0.0.9 dst=10.0.0.1 sport=4000 dport=53 [UNREPLIED] src=10.0.0.1 dst=10.0.0.9 sport=53 dport=4000 mark=0 zone=0 use=2',
  'ipv6     10 udp      17 170 src=fd00::9 dst=fd00::1 sport=4001 dport=9002 src=fd00:88::2 dst=fd00::9 sport=9002 dport=4001 [ASSURED] mark=0 zone=0 use=2',
  'ipv4     2 icmp     1 29 src=10.0.0.9 dst=10.0.0.1 type=8 code=0 id=53 src=10.0.0.1 dst=10.0.0.9 type=0 code=0 id=53 mark=0 use=1',
  '',
].join('\n');

test('flows match by protocol and original destination port, not by that of replies', () => {
  assert.equal(listed(LIST, [udp(53), udp(9002), udp(8080), udp(4000), udp(54)]), [udp(53), udp(9002)]);
  assert.equal(listed(LIST, [udp(8000, 9001), udp(9000, 9010)]), [udp(9000, 9010)]);
  const tcp: Flows = { protocol: 'tcp', originalPort: 8080 };
  assert.equal(listed(LIST, [tcp, { ...tcp, originalPort: 80 }, { ...tcp, originalPort: 50000 }]), [tcp]);
  assert.equal(listed('', [udp(53)]), []);
});

test.run();
