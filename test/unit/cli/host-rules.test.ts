/** Which of the host's rules are about one container, and what a trace says of a packet. */
import * as assert from 'uvu/assert';
import { parseNft, parseSave } from '../../../cli/show/host-rules.ts';
import { traceText } from '../../../cli/show/trace.ts';
import { suite } from '../../support/suite.ts';

const test = suite('weft show: rules and traces');

test('iptables-save: rules that name the container, and those of its own chains', () => {
  const text = `*nat
:CNI-DN-a - [0:0]
[3:180] -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"n\\" id: \\"c1\\"" -j CNI-DN-a
[0:0] -A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"n\\" id: \\"c10\\"" -j CNI-DN-b
[3:180] -A CNI-DN-a -p tcp -j DNAT --to-destination 10.0.0.2:80
[0:0] -A CNI-DN-b -p tcp -j DNAT --to-destination 10.0.0.20:80
COMMIT
*filter
[1:60] -A CNI-FORWARD -s 10.0.0.2/32 -j ACCEPT
[1:60] -A CNI-FORWARD -s 10.0.0.20/32 -j ACCEPT
`;
  assert.equal(
    parseSave(text, ['c1', '10.0.0.2']).map(({ chain, text: rule }) => `${chain}: ${rule.slice(0, 24)}`),
    [
      'nat CNI-HOSTPORT-DNAT: [3:180] -p tcp -m commen',
      'nat CNI-DN-a: [3:180] -p tcp -j DNAT -',
      'filter CNI-FORWARD: [1:60] -s 10.0.0.2/32 -j',
    ],
  );
});

test('nft list: elements of the container, the policy of the node, and no table of another program', () => {
  const text = `table ip other {
	chain x {
		ip saddr 10.0.0.2 drop
	}
}
table inet weft_firewall {
	set containers4 {
		type ipv4_addr
		elements = { 10.0.0.2 comment "name: n id: c1",
			     10.0.0.20 comment "name: n id: c10" }
	}
}
table inet weft_policy {
	chain from_networks {
		oifname @networks counter packets 1 bytes 60 reject comment "isolation: network"
	}
}
`;
  assert.equal(parseNft(text, ['c1', '10.0.0.2']), [
    { chain: 'inet weft_firewall containers4', text: '10.0.0.2 comment "name: n id: c1"' },
    {
      chain: 'inet weft_policy from_networks',
      text: 'oifname @networks counter packets 1 bytes 60 reject comment "isolation: network"',
    },
  ]);
});

test('a trace: one paragraph a packet, its header, then each verdict', () => {
  const text = `trace id 1 inet weft_trace prerouting packet: iif "br0" ether saddr 02:00:00:00:00:01 ether daddr 02:00:00:00:00:02 ip saddr 10.0.0.2 ip daddr 192.0.2.1 ip dscp cs0 ip ecn not-ect ip ttl 64 ip id 1 ip protocol tcp ip length 60 tcp dport 80 @th,64,96 0xc5
trace id 1 inet weft_trace prerouting rule ip saddr 10.0.0.2 meta nftrace set 1 (verdict continue)
trace id 1 ip filter FORWARD packet: iif "br0" oif "eth0" ip saddr 10.0.0.2
trace id 1 ip filter FORWARD rule counter drop (verdict drop)
`;
  assert.is(
    traceText(text),
    'iif "br0" ip saddr 10.0.0.2 ip daddr 192.0.2.1 ip protocol tcp tcp dport 80\n  ip filter FORWARD rule counter drop (verdict drop)\n',
  );
  assert.is(traceText(''), 'no packets\n');
});

test.run();
