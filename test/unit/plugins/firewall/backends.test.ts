import { iptablesBackend } from '../../../../plugins/firewall/iptables/backend.ts';
import { nftablesBackend } from '../../../../plugins/firewall/nftables/backend.ts';
import { hostsByFamily, type FirewallPlan } from '../../../../plugins/firewall/plan.ts';
import { backendCases, type ContainerName } from '../../../support/packetfilter/backend-cases.ts';
import { makeFakeHost } from '../../../support/packetfilter/fake-host.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('back ends of firewall');
const host = makeFakeHost();
/** Warnings are about routes, which this host does not have. */
const warn = (): void => undefined;

const ADDRESSES = { one: ['10.88.0.2', 'fd00:88::2'], two: ['10.88.0.3', 'fd00:88::3'] } as const;

function planOf(container: ContainerName): FirewallPlan {
  return {
    network: 'net1',
    containerId: container,
    adminChain: 'CNI-ADMIN',
    ingressPolicy: 'same-bridge',
    zone: 'trusted',
    addresses: hostsByFamily(ADDRESSES[container]),
    subnets: { ipv4: ['10.88.0.0/16'], ipv6: ['fd00:88::/64'] },
    bridge: 'br0',
    hostInterfaces: ['br0', `veth-${container}`],
  };
}

for (const [name, backend] of [
  ['iptables', iptablesBackend],
  ['nftables', nftablesBackend],
] as const) {
  backendCases(test, host, {
    name,
    add: (container) => backend.add(planOf(container), warn),
    missing: (container) => backend.missing(planOf(container), () => undefined),
    remove: (container) => {
      const { addresses } = planOf(container);
      const attachment = { network: 'net1', containerId: container, zone: 'trusted' };
      backend.remove({ ...attachment, addresses, known: addresses }, warn);
    },
    collect:
      name === 'iptables'
        ? undefined
        : (valid) => {
            const containers = valid.map((container) => ({ containerID: container, ifname: 'eth0' }));
            backend.collect({ network: 'net1', valid: containers, zone: 'trusted' }, warn);
          },
  });
}

test.run();
