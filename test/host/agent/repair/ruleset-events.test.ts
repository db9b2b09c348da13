import * as assert from 'uvu/assert';
import { RulesetEvents } from '../../../../agent/repair/ruleset-events.ts';
import { sh } from '../../../e2e/support/client-host.ts';
import { suite } from '../../../support/suite.ts';
import { useVariant } from '../../../support/variants.ts';

const test = suite('deletions that may need a repair');

const SETUP = [
  'iptables -N CNI-FORWARD',
  'iptables -A FORWARD -j CNI-FORWARD',
  'iptables -A CNI-FORWARD -s 10.0.0.2 -j ACCEPT',
  'iptables -N OTHER',
  'iptables -A FORWARD -j OTHER',
  'iptables -A OTHER -j RETURN',
  "nft 'add table bridge nat; add chain bridge nat PREROUTING; add chain bridge nat cni-br-iface-x-eth0'",
  "nft 'add rule bridge nat PREROUTING jump cni-br-iface-x-eth0; add table inet weft_firewall; add table inet other'",
];

const NEED = [
  'iptables -D FORWARD -j CNI-FORWARD',
  'iptables -F CNI-FORWARD',
  'iptables -F FORWARD',
  'nft flush chain bridge nat PREROUTING',
  'nft delete table inet weft_firewall',
  'nft flush ruleset',
];

const NEED_NOT = [
  'iptables -A CNI-FORWARD -s 10.0.0.3 -j ACCEPT',
  'iptables -D FORWARD -j OTHER',
  'iptables -F OTHER',
  'iptables -D FORWARD -j OTHER; iptables -F OTHER; iptables -X OTHER',
  'nft delete table inet other',
  // No notification is dropped while the agent works.
  'for i in $(seq 5000); do echo "add chain inet other c$i; add rule inet other c$i ip saddr 10.0.0.1 accept"; done | nft -f -',
];

for (const [isNeeded, commands] of [
  [true, NEED],
  [false, NEED_NOT],
] as const)
  for (const command of commands)
    test(`${command}: ${isNeeded ? 'yes' : 'no'}`, () => {
      useVariant('nft');
      sh(`nft flush ruleset; ${SETUP.join('; ')}`);
      const events = new RulesetEvents();
      try {
        sh(command);
        assert.is(events.hasDeletions(), isNeeded);
        assert.is(events.hasDeletions(), false, 'once');
      } finally {
        events.close();
      }
    });

test.run();
