import * as assert from 'uvu/assert';
import { suite } from '../../../support/suite.ts';
import { clear, saved, VARIANTS, type Variant } from '../../../support/variants.ts';
import { referenceMissing, runReference } from '../../../support/reference.ts';
import {
  good,
  makeContainer,
  makeWorld,
  useHostVariant,
  type Container,
} from '../../../support/port-host.ts';

const test = suite("portmap beside the reference's", { limit: 120 });
const missing = referenceMissing('portmap');

if (missing === undefined) cases();
else test.skip('same rules, and each cleans up after the other', missing);
test.run();

function cases(): void {
  let container: Container;

  test.before(() => {
    makeWorld();
    container = makeContainer('c1', 11);
  });

  const port = (hostPort: number, protocol: string, more: object = {}): object => ({
    hostPort,
    containerPort: 80,
    protocol,
    ...more,
  });
  const both = (hostPort: number): object[] => [port(hostPort, 'tcp'), port(hostPort, 'udp')];

  /** Configurations that the reference 1.1 understands. */
  const CONFIGURATIONS: Record<string, object> = {
    'as Nomad sends it': { snat: true, portMappings: both(9002) },
    'many ports': { portMappings: Array.from({ length: 20 }, (_, at) => port(9000 + at, 'tcp')) },
    'addresses of the host': {
      portMappings: [
        port(9002, 'tcp', { hostIP: '192.0.2.1' }),
        port(9003, 'tcp', { hostIP: '2001:db8::1' }),
        ...both(9004),
      ],
    },
    'no snat': { snat: false, portMappings: both(9002) },
    'another mark': { markMasqBit: 0, portMappings: both(9002) },
    conditions: {
      conditionsV4: ['!', '-s', '192.0.2.2'],
      conditionsV6: ['-i', 'up0'],
      portMappings: both(9002),
    },
    sctp: { portMappings: [port(9002, 'sctp')] },
  };

  /** ip6tables-legacy 1.8.9 takes a rule for present that differs in its ports only, so there the reference leaves some out. */
  const addressesFor = (variant: Variant): object[] => [
    { version: '4', interface: 1, address: '10.88.0.11/16' },
    ...(variant === 'legacy' ? [] : [{ version: '6', interface: 1, address: 'fd00:88::11/64' }]),
  ];
  const config = (variant: Variant, { portMappings, ...more }: { portMappings?: object }): object => ({
    cniVersion: '0.4.0',
    name: 'nomad',
    type: 'portmap',
    ...more,
    runtimeConfig: { portMappings },
    prevResult: {
      cniVersion: '0.4.0',
      interfaces: [{ name: 'br0' }, { name: 'eth0', sandbox: container.netns }],
      ips: addressesFor(variant),
    },
  });
  const all = (): string => `${saved('nat')}\n${saved('nat', 'ipv6')}`;

  for (const variant of VARIANTS) {
    for (const [title, wanted] of Object.entries(CONFIGURATIONS)) {
      test(`iptables-${variant}, ${title}: the same rules, and each cleans up after the other`, () => {
        useHostVariant(variant);
        clear('nat');
        const body = config(variant, wanted);
        runReference('portmap', 'ADD', container, body);
        const theirs = all();
        good('portmap', 'CHECK', container, body);
        good('portmap', 'ADD', container, body);
        assert.is(all(), theirs, 'an ADD of ours on top of theirs changes nothing');
        good(
          'portmap',
          'DEL',
          { ...container, netns: '' },
          { ...body, prevResult: undefined, runtimeConfig: {} },
        );
        const shared = all();
        assert.not.match(shared, /CNI-DN-/);

        clear('nat');
        good('portmap', 'ADD', container, body);
        assert.is(all(), theirs, 'ours on a fresh host are the same');
        runReference('portmap', 'ADD', container, body);
        assert.is(all(), theirs, 'an ADD of theirs on top of ours changes nothing');
        runReference('portmap', 'DEL', container, body);
        assert.is(all(), shared);
        clear('nat');
      });
    }
  }
}
