import * as assert from 'uvu/assert';
import type { Finding } from '../../../../cli/doctor/finding.ts';
import type { Host } from '../../../../cli/doctor/examined-host.ts';
import { KERNEL_CHECKS } from '../../../../cli/doctor/kernel.ts';
import { PACKET_FILTER_CHECKS } from '../../../../cli/doctor/packet-filter.ts';
import { suite } from '../../../support/suite.ts';

/** Faults that no test host can have: they belong to the whole machine. */
const test = suite('weft doctor on another machine');

const HEALTHY: Host = {
  options: {
    cniPath: [],
    configDir: '/nowhere',
    nomadDataDirs: [],
    consul: '127.0.0.1:8500',
    dns: undefined,
  },
  isRoot: true,
  sysctl: (path) => SYSCTLS.get(path),
  text: (path) => (path === '/proc/self/mounts' ? 'proc /proc proc rw 0 0\n' : undefined),
  names: () => [],
  space: () => undefined,
  features: () => [{ feature: 'nf_tables', module: 'nf_tables', problem: undefined }],
  links: () => [],
  addresses: () => [],
  routes: () => [],
  attachments: () => [],
  networks: () => [],
  iptablesVariant: () => 'nft',
  iptablesTables: () => [],
  nativeRules: () => [],
  consul: () => Promise.reject(new Error('no Consul agent')),
};

const SYSCTLS = new Map([
  ['net/netfilter/nf_conntrack_count', '10'],
  ['net/netfilter/nf_conntrack_max', '1000'],
  ['kernel/modules_disabled', '0'],
  ['user/max_net_namespaces', '60000'],
]);

const sysctl = (changed: Record<string, string>): Partial<Host> => ({
  sysctl: (path) => changed[path] ?? SYSCTLS.get(path),
});

const FAULTS: readonly [fault: string, host: Partial<Host>, id: Finding['id'], remedy: string][] = [
  [
    'a kernel without the owner match',
    {
      features: () => [
        {
          feature: 'owner match of iptables',
          module: 'xt_owner',
          problem: 'No chain/target/match by that name.',
        },
      ],
    },
    'kernel-feature',
    "load the module xt_owner (modprobe), or install the package with the kernel's extra modules",
  ],
  [
    'a connection table that is nearly full',
    sysctl({ 'net/netfilter/nf_conntrack_count': '950' }),
    'conntrack-full',
    'sysctl -w net.netfilter.nf_conntrack_max=2000',
  ],
  [
    'no more modules can be loaded',
    sysctl({ 'kernel/modules_disabled': '1' }),
    'modules-disabled',
    'load bridge, veth, nf_tables and br_netfilter at boot, before the setting: list them in /etc/modules-load.d/weft.conf, and reboot',
  ],
  [
    'network namespaces forbidden',
    sysctl({ 'user/max_net_namespaces': '0' }),
    'namespace-limit',
    'sysctl -w user.max_net_namespaces=10000',
  ],
  [
    'a host without iptables',
    { iptablesVariant: () => undefined },
    'iptables-missing',
    'install the package iptables',
  ],
];

test('a healthy machine: nothing to report', async () => {
  assert.equal(await findings({}), []);
});

for (const [fault, host, id, remedy] of FAULTS) {
  test(`${fault}: ${id}`, async () => {
    assert.equal(
      (await findings(host)).map((found) => [found.id, found.remedy]),
      [[id, remedy]],
    );
  });
}

test.run();

async function findings(changed: Partial<Host>): Promise<Finding[]> {
  const host = { ...HEALTHY, ...changed };
  // Those that read nothing but the host's description.
  const checks = [...KERNEL_CHECKS, ...PACKET_FILTER_CHECKS];
  const found: Finding[] = [];
  for (const { run } of checks) found.push(...(await run(host)));
  return found;
}
