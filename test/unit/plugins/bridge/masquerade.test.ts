import { iptables } from '../../../../plugins/bridge/iptables/masquerade.ts';
import { nftables } from '../../../../plugins/bridge/nftables/masquerade.ts';
import type { MasqueradeBackend } from '../../../../plugins/bridge/backend.ts';
import { backendCases, type ContainerName } from '../../../support/packetfilter/backend-cases.ts';
import { makeFakeHost } from '../../../support/packetfilter/fake-host.ts';
import { suite } from '../../../support/suite.ts';

const test = suite('masquerading of bridge');
const host = makeFakeHost();
const warn = (line: string): never => {
  throw new Error(`unexpected warning: ${line}`);
};

const ADDRESSES = { one: ['10.88.0.2/16', 'fd00:88::2/64'], two: ['10.88.0.3/16', 'fd00:88::3/64'] } as const;
const attachmentOf = (container: ContainerName) => ({
  network: 'net1',
  containerId: container,
  ifname: 'eth0',
});
const masqueraded = (container: ContainerName) => ({ addresses: ADDRESSES[container], keep: [] });

const BACKENDS: readonly (readonly [string, MasqueradeBackend])[] = [
  ['iptables', iptables],
  ['nftables', nftables],
];
for (const [name, backend] of BACKENDS) {
  backendCases(test, host, {
    name,
    add: (container) => backend.add(attachmentOf(container), masqueraded(container), warn),
    missing: (container) => backend.missing(attachmentOf(container), masqueraded(container)),
    remove: (container) => backend.remove(attachmentOf(container), [], warn),
    collect: (valid) =>
      backend.collect(
        'net1',
        valid.map((containerID) => ({ containerID, ifname: 'eth0' })),
        warn,
      ),
  });
}

test.run();
