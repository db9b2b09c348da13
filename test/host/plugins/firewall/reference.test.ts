import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { clear, saved, VARIANTS } from '../../../support/variants.ts';
import { referenceMissing, runReference } from '../../../support/reference.ts';
import { good, useHostVariant } from '../../../support/port-host.ts';

const test = suite("firewall beside the reference's", { limit: 120 });
const missing = referenceMissing('firewall');

if (missing === undefined) cases();
else test.skip('same rules, and each cleans up after the other', missing);
test.run();

function cases(): void {
  const container = { id: 'c1', netns: '/run/netns/never' };
  /** What release 1.1 knows; it has no policy `isolated` yet. */
  const CONFIGURATIONS: Record<string, object> = {
    'as Nomad sends it': { iptablesAdminChainName: 'NOMAD-ADMIN' },
    'nothing said': {},
    'same-bridge': { ingressPolicy: 'same-bridge' },
  };
  const config = (more: object): object => ({
    cniVersion: '0.4.0',
    name: 'nomad',
    type: 'firewall',
    backend: 'iptables',
    ...more,
    prevResult: {
      cniVersion: '0.4.0',
      interfaces: [{ name: 'nomad' }, { name: 'eth0', sandbox: container.netns }],
      ips: [
        { version: '4', interface: 1, address: '172.26.64.5/20' },
        { version: '6', interface: 1, address: 'fd00::5/64' },
      ],
    },
  });
  const all = (): string => `${saved('filter')}\n${saved('filter', 'ipv6')}`;

  for (const variant of VARIANTS) {
    for (const [title, more] of Object.entries(CONFIGURATIONS)) {
      test(`iptables-${variant}, ${title}: the same rules, and each cleans up after the other`, () => {
        useHostVariant(variant);
        clear('filter');
        const body = config(more);
        runReference('firewall', 'ADD', container, body);
        const theirs = all();
        assert.match(theirs, /-s 172\.26\.64\.5\/32 -j ACCEPT/);
        good('firewall', 'CHECK', container, body);
        good('firewall', 'ADD', container, body);
        assert.is(all(), theirs, 'an ADD of ours on top of theirs changes nothing');
        good('firewall', 'DEL', container, body);
        const shared = all();
        assert.not.match(shared, /172\.26\.64\.5/);

        clear('filter');
        good('firewall', 'ADD', container, body);
        assert.is(all(), theirs, 'ours on a fresh host are the same');
        runReference('firewall', 'CHECK', container, body);
        runReference('firewall', 'ADD', container, body);
        assert.is(all(), theirs, 'an ADD of theirs on top of ours changes nothing');
        runReference('firewall', 'DEL', container, body);
        assert.is(all(), shared);
        clear('filter');
      });
    }
  }
}
