import * as z from 'zod/mini';
import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import { inNamespace, isNetworkNamespace } from '../../shared/kernel/namespace.ts';
import { addresses } from '../../shared/kernel/rtnetlink/addresses.ts';
import { linkByName, type LinkInfo } from '../../shared/kernel/rtnetlink/links.ts';
import { Rtnetlink } from '../../shared/kernel/rtnetlink/rtnetlink.ts';
import { masqueradeChain, portmapChain } from '../../shared/packetfilter/names.ts';
import { healthOf } from '../attachments/health.ts';
import { portsText, viewOf, viewSchema } from '../attachments/view.ts';
import { hostRules, type HostRule } from './rules-of-container.ts';
import { transparentProxySections } from './tproxy.ts';

const stationSchema = z.strictObject({
  title: z.string(),
  detail: z.string(),
  /** With counters, as iptables-save and nft print them. */
  rules: z.array(z.strictObject({ chain: z.string(), text: z.string() })),
  /** Why the packet does not get further; empty if nothing is missing. */
  missing: z.array(z.string()),
});

/** What `weft show --json` prints. */
export const pathSchema = z.strictObject({
  attachment: viewSchema,
  inbound: z.array(stationSchema),
  outbound: z.array(stationSchema),
  /** What the rules of the transparent proxy do, in paragraphs. */
  proxy: z.array(z.string()),
  warnings: z.array(z.string()),
});

/** One station of a packet. */
export type Station = z.output<typeof stationSchema>;
export type PacketPath = z.output<typeof pathSchema>;

/** The way of packets from outside to the container and from it to the outside, as this host has it now. Changes nothing. */
export async function packetPath(entry: InventoryEntry): Promise<PacketPath> {
  const attachment = viewOf(entry);
  const { problems, warnings } = await healthOf(entry);
  const rules = hostRules([
    entry.containerId,
    ...attachment.addresses,
    portmapChain(entry),
    masqueradeChain(entry),
  ]);
  const proxy = isNetworkNamespace(entry.netns) ? inNamespace(entry.netns, transparentProxySections) : [];
  const of = (pattern: RegExp): HostRule[] => rules.filter(({ chain }) => pattern.test(chain));
  const missingOf = (type: string): string[] =>
    problems.filter((text) => text.startsWith(`${type}: `)).map((text) => text.slice(type.length + 2));
  const bridgeMissing = missingOf('bridge');
  const masqueradeMissing = bridgeMissing.filter((text) => /^masquerading/.test(text));
  const hasProxy =
    proxy.length > 0 || entry.plugins.some(({ type }) => /^consul-(cni|tproxy)$/.test(String(type)));

  const dnat: Station[] =
    attachment.ports.length === 0
      ? []
      : [station('DNAT', `ports ${portsText(attachment.ports)}`, of(DNAT), missingOf('portmap'))];
  const policy = of(/weft_policy from_networks/);
  const policyStation: Station[] = policy.length === 0 ? [] : [station('policy', 'weft.json', policy, [])];
  const forward = station('forward', 'firewall', of(/^filter |weft_firewall/), missingOf('firewall'));
  const [bridge, veth, container] = links(
    entry,
    bridgeMissing.filter((text) => !masqueradeMissing.includes(text)),
  );
  const redirect: Station[] = hasProxy
    ? [
        station('redirect', 'consul-tproxy', [], [...missingOf('consul-cni'), ...missingOf('consul-tproxy')]),
        station('sidecar', proxyText(proxy), [], []),
      ]
    : [];
  const masquerade = station('masquerade', '', of(MASQUERADE), masqueradeMissing);
  return {
    attachment,
    inbound: [OUTSIDE, ...dnat, forward, bridge, veth, container, ...redirect, TASK],
    outbound: [
      TASK,
      ...redirect,
      ...[container, veth, bridge],
      ...policyStation,
      ...[forward, masquerade, OUTSIDE],
    ],
    proxy,
    warnings: [...warnings, ...(entry.state === 'running' ? [] : [entry.reason])],
  };
}

const [OUTSIDE, TASK] = ['outside', 'task'].map((title) => station(title, '', [], [])) as [Station, Station];
const DNAT = /^nat CNI-(HOSTPORT-DNAT|DN-)|weft_hostports/;
const MASQUERADE = /^nat (?!CNI-HOSTPORT-DNAT|CNI-DN-)|cni_plugins_masquerade|weft_masquerade/;

function station(
  title: string,
  detail: string,
  rules: readonly HostRule[],
  missing: readonly string[],
): Station {
  return { title, detail, rules: [...rules], missing: [...missing] };
}

function proxyText(sections: readonly string[]): string {
  const line = sections.find((text) => text.startsWith('Proxy: '));
  return line === undefined ? '' : (line.split('\n')[0] ?? '').slice('Proxy: '.length);
}

/** Bridge, host end and container end; a missing one is marked with what CHECK says of it. */
function links(entry: InventoryEntry, problems: readonly string[]): [Station, Station, Station] {
  const [bridgeName = '?', hostName = '?'] = entry.hostInterfaces;
  const ifname = entry.ifname ?? 'eth0';
  using host = Rtnetlink.open();
  const [bridge, end] = [bridgeName, hostName].map((name) => linkByName(host, name));
  const gateways =
    bridge === undefined
      ? []
      : addresses(host, { index: bridge.index })
          .map(({ address }) => address)
          .filter((text) => !text.startsWith('fe80:'));
  const inside = isNetworkNamespace(entry.netns) ? insideText(entry.netns, ifname) : undefined;
  const about = (name: string): string[] => problems.filter((text) => text.includes(name));
  const rest = problems.filter((text) => ![bridgeName, hostName, ifname].some((name) => text.includes(name)));
  return [
    station(
      'bridge',
      linkText(bridgeName, bridge, gateways),
      [],
      absent(bridgeName, bridge, about(bridgeName)),
    ),
    station(
      'veth',
      linkText(hostName, end, end?.port?.isolated === true ? ['isolated'] : []),
      [],
      absent(hostName, end, about(hostName)),
    ),
    station(
      ifname,
      inside ?? 'no network namespace',
      [],
      [
        ...(inside === undefined ? [entry.reason] : []),
        ...about(ifname).filter((text) => !text.includes(bridgeName) && !text.includes(hostName)),
        ...rest,
      ],
    ),
  ];
}

function absent(name: string, link: LinkInfo | undefined, problems: readonly string[]): string[] {
  return link === undefined && problems.length === 0 ? [`${name} does not exist`] : [...problems];
}

function linkText(name: string, link: LinkInfo | undefined, more: readonly string[]): string {
  return [name, ...(link === undefined ? [] : [link.up ? 'up' : 'down']), ...more].join(' ');
}

function insideText(netns: string, ifname: string): string {
  using inside = Rtnetlink.openIn(netns);
  const link = linkByName(inside, ifname);
  if (link === undefined) return 'missing';
  const own = addresses(inside, { index: link.index }).map(({ address }) => address);
  return [link.up ? 'up' : 'down', ...own.filter((text) => !text.startsWith('fe80:'))].join(' ');
}
