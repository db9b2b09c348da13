/** Which of the host's rules are about one container. */
import * as assert from 'uvu/assert';
import { parseNft, parseSave } from '../../../cli/show/rules-of-container.ts';
import { suite } from '../../support/suite.ts';

const test = suite('weft show: rules');

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

test.run();
