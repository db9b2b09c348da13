import { writeSysctl } from '../../shared/kernel/sysctl.ts';
import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import type { Check, Finding, Fix } from './finding.ts';
import type { Host } from './examined-host.ts';
import { defaultRoutes } from './uplinks.ts';
import type { Network } from './networks.ts';

export const KERNEL_CHECKS: readonly Check<Host>[] = [
  { name: 'kernel features', group: 'kernel', run: features },
  { name: 'forwarding', group: 'kernel', run: forwarding },
  { name: 'sysctls of the bridge', group: 'kernel', run: bridgeSysctls },
  { name: 'sysctls of the uplink', group: 'kernel', run: uplinkSysctls },
  { name: 'connection table', group: 'kernel', run: connectionTable },
  { name: 'hardening', group: 'kernel', run: hardening },
];

function features(host: Host): Finding[] {
  return host.features().flatMap(({ feature, module, problem }): Finding[] =>
    problem === undefined
      ? []
      : [
          {
            id: 'kernel-feature',
            what: `this kernel has no ${feature}: ${problem}`,
            where: feature,
            remedy: `load the module ${module} (modprobe), or install the package with the kernel's extra modules`,
          },
        ],
  );
}

/** Without allocations, the first ADD turns forwarding on. */
function forwarding(host: Host): Finding[] {
  const running = runningOn(host);
  const families = familiesOf(running);
  const global = [
    { family: 'ipv4', sysctl: 'net/ipv4/ip_forward' },
    { family: 'ipv6', sysctl: 'net/ipv6/conf/all/forwarding' },
  ].filter(({ family, sysctl }) => families.has(family) && host.sysctl(sysctl) === '0');
  const bridges = bridgesOf(host, running);
  const interfaces = [...bridges, ...defaultRoutes(host, 'ipv4').map(({ device }) => device)];
  const single =
    global.some(({ family }) => family === 'ipv4') || !families.has('ipv4')
      ? []
      : interfaces.filter((name) => host.sysctl(`net/ipv4/conf/${name}/forwarding`) === '0');
  return [
    ...global.map(({ sysctl }) => setting(host, 'ip-forward-off', sysctl, '1')),
    ...[...new Set(single)].map((name) =>
      setting(host, 'bridge-forwarding-off', `net/ipv4/conf/${name}/forwarding`, '1'),
    ),
  ];
}

function bridgeSysctls(host: Host): Finding[] {
  const running = runningOn(host);
  const families = familiesOf(running);
  const found: Finding[] = [];
  for (const [family, name] of [
    ['ipv4', 'bridge-nf-call-iptables'],
    ['ipv6', 'bridge-nf-call-ip6tables'],
  ] as const) {
    const sysctl = `net/bridge/${name}`;
    if (families.has(family) && host.sysctl(sysctl) === '0')
      found.push(setting(host, 'bridge-nf-call-off', sysctl, '1'));
  }
  for (const bridge of bridgesOf(host, running)) {
    const localnet = `net/ipv4/conf/${bridge}/route_localnet`;
    const all = host.sysctl('net/ipv4/conf/all/route_localnet');
    if (publishesPorts(host, running, bridge) && host.sysctl(localnet) === '0' && all === '0')
      found.push(setting(host, 'route-localnet-off', localnet, '1'));
    const ignored = ['all', bridge].find((name) => host.sysctl(`net/ipv4/conf/${name}/arp_ignore`) === '8');
    if (ignored !== undefined)
      found.push(setting(host, 'arp-ignored', `net/ipv4/conf/${ignored}/arp_ignore`, '0'));
  }
  return found;
}

function uplinkSysctls(host: Host): Finding[] {
  const found: Finding[] = [];
  const uplinks = [...new Set(defaultRoutes(host, 'ipv4').map(({ device }) => device))];
  const all = host.sysctl('net/ipv4/conf/all/rp_filter') ?? '0';
  for (const device of uplinks.length > 1 ? uplinks : []) {
    const sysctl = `net/ipv4/conf/${device}/rp_filter`;
    // The kernel uses the larger of both: 2 is the loose mode.
    if (Math.max(Number(all), Number(host.sysctl(sysctl) ?? '0')) === 1)
      found.push(setting(host, 'rp-filter-strict', sysctl, '2'));
  }
  for (const { device, protocol } of defaultRoutes(host, 'ipv6')) {
    const sysctl = `net/ipv6/conf/${device}/accept_ra`;
    const forwards = host.sysctl(`net/ipv6/conf/${device}/forwarding`) === '1';
    if (protocol === RTPROT_RA && forwards && host.sysctl(sysctl) === '1')
      found.push(setting(host, 'ipv6-ra-ignored', sysctl, '2'));
  }
  return found;
}

function connectionTable(host: Host): Finding[] {
  const [count, most] = ['count', 'max'].map((name) =>
    Number(host.sysctl(`net/netfilter/nf_conntrack_${name}`) ?? '0'),
  );
  if (count === undefined || most === undefined || most === 0 || count < 0.9 * most) return [];
  return [
    {
      id: 'conntrack-full',
      what: `${count} of ${most} connections are tracked`,
      where: 'net.netfilter.nf_conntrack_max',
      remedy: `sysctl -w net.netfilter.nf_conntrack_max=${2 * most}`,
    },
  ];
}

function hardening(host: Host): Finding[] {
  const found: Finding[] = [];
  if (isReadOnly(host.text('/proc/self/mounts') ?? '', '/proc/sys'))
    found.push({
      id: 'proc-sys-read-only',
      what: '/proc/sys is mounted read-only',
      where: '/proc/sys',
      remedy: 'mount -o remount,bind,rw /proc/sys',
    });
  if (host.sysctl('kernel/modules_disabled') === '1')
    found.push({
      id: 'modules-disabled',
      what: 'kernel.modules_disabled is 1',
      where: 'kernel.modules_disabled',
      remedy:
        'load bridge, veth, nf_tables and br_netfilter at boot, before the setting: list them in /etc/modules-load.d/weft.conf, and reboot',
    });
  const limit = host.sysctl('user/max_net_namespaces');
  if (limit !== undefined && Number(limit) < 16)
    found.push({
      id: 'namespace-limit',
      what: `user.max_net_namespaces is ${limit}`,
      where: 'user.max_net_namespaces',
      remedy: 'sysctl -w user.max_net_namespaces=10000',
    });
  for (const { bridge, name } of host.networks().filter(hasIpv6)) {
    const disabled = ['all', bridge].find((one) => host.sysctl(`net/ipv6/conf/${one}/disable_ipv6`) === '1');
    const isMissing = host.sysctl('net/ipv6/conf/all/disable_ipv6') === undefined;
    if (disabled !== undefined)
      found.push(setting(host, 'ipv6-disabled', `net/ipv6/conf/${disabled}/disable_ipv6`, '0', false));
    if (isMissing)
      found.push({
        id: 'ipv6-disabled',
        what: 'this kernel runs without IPv6',
        where: `network ${name}`,
        remedy: 'boot without ipv6.disable=1, or remove the IPv6 range from the network',
      });
  }
  return found;
}

/** The last mount of a path counts. */
function isReadOnly(mounts: string, path: string): boolean {
  const options = mounts
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, point]) => point === path)
    .map(([, , , list = '']) => list.split(','));
  return options.at(-1)?.includes('ro') === true;
}

/** A finding about one sysctl, whose remedy is to set it. */
function setting(
  host: Pick<Host, 'sysctl'>,
  id: Finding['id'],
  sysctl: string,
  wanted: string,
  isSafe = true,
): Finding {
  const found = host.sysctl(sysctl) ?? '';
  const name = sysctl.replaceAll('/', '.');
  const command = (value: string): string => `sysctl -w ${name.includes('-') ? sysctl : name}=${value}`;
  const fix: Fix = {
    command: command(wanted),
    undo: command(found),
    apply: () => void writeSysctl(sysctl, wanted),
  };
  return {
    id,
    what: `${name} is ${found}`,
    where: name,
    remedy: command(wanted),
    ...(isSafe && { fix }),
  };
}

function runningOn(host: Host): readonly InventoryEntry[] {
  return host.attachments().filter(({ state }) => state === 'running');
}

function familiesOf(attachments: readonly InventoryEntry[]): Set<string> {
  const texts = attachments.flatMap(({ addresses }) => addresses);
  return new Set(texts.map((text) => (text.includes(':') ? 'ipv6' : 'ipv4')));
}

/** Bridges of running attachments that exist. */
function bridgesOf(host: Host, running: readonly InventoryEntry[]): string[] {
  const inUse = new Set(running.map(({ network }) => network));
  const names = host.networks().flatMap(({ name, bridge }) => (inUse.has(name) ? [bridge] : []));
  return [...new Set(names)].filter((name) => host.links().some((link) => link.name === name));
}

function publishesPorts(host: Host, running: readonly InventoryEntry[], bridge: string): boolean {
  const networks = host.networks().flatMap((network) => (network.bridge === bridge ? [network.name] : []));
  return running.some(
    ({ network, capabilityArgs }) =>
      networks.includes(network) &&
      ((capabilityArgs['portMappings'] as unknown[] | undefined) ?? []).length > 0,
  );
}

function hasIpv6({ rangeSets }: Network): boolean {
  return rangeSets.flat().some(({ subnet }) => subnet.address.family === 'ipv6');
}

/** RTPROT_RA of linux/rtnetlink.h */
const RTPROT_RA = 9;
