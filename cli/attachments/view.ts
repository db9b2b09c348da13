import { configureIpam } from '../../shared/ipam/config.ts';
import { configure as configurePortmap } from '../../plugins/portmap/config.ts';
import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import { compareAddresses, formatAddress, formatCidr } from '../../shared/net/address.ts';
import { chooseBackend } from '../../shared/packetfilter/select.ts';

/** What operators call an attachment by, and what it has: for `weft status` and `weft show`. */
export interface AttachmentView {
  readonly network: string;
  readonly container: string;
  readonly interface: string | null;
  /** From Nomad's CNI_ARGS; null for other runtimes. */
  readonly job: string | null;
  readonly group: string | null;
  readonly addresses: readonly string[];
  readonly ports: readonly PublishedPort[];
  /** `iptables`, `nftables` or `firewalld`; several if the plugins of the list name different ones. */
  readonly backend: string;
  readonly addedAt: string;
  readonly ageSeconds: number;
  readonly state: InventoryEntry['state'];
  readonly reason: string;
}

export interface PublishedPort {
  readonly protocol: string;
  readonly host: number;
  readonly container: number;
  /** Number of ports, counted up from both. */
  readonly range: number;
  /** The host's address; '' for all. */
  readonly address: string;
}

export function viewOf(entry: InventoryEntry): AttachmentView {
  const args = new Map(entry.args);
  return {
    network: entry.network,
    container: entry.containerId,
    interface: entry.ifname ?? null,
    job: args.get('NOMAD_JOB_ID') ?? null,
    group: args.get('NOMAD_GROUP_NAME') ?? null,
    addresses: entry.addresses.map((text) => text.replace(/\/\d+$/, '')),
    ports: publishedPorts(entry),
    backend: backendOf(entry),
    addedAt: new Date(entry.addedAtMs).toISOString(),
    ageSeconds: Math.max(0, Math.round((Date.now() - entry.addedAtMs) / 1000)),
    state: entry.state,
    reason: entry.reason,
  };
}

/** `8080->80/tcp`; tcp and udp of the same ports, as Nomad publishes each, are one: `8080->80`. */
export function portsText(ports: readonly PublishedPort[]): string {
  const groups = Map.groupBy(ports, ({ address, host, container, range }) => {
    const span = (first: number): string => (range === 1 ? `${first}` : `${first}-${first + range - 1}`);
    const to = host === container ? '' : `->${span(container)}`;
    return `${address === '' ? '' : `${address}:`}${span(host)}${to}`;
  });
  return [...groups]
    .map(([text, same]) => (same.length > 1 ? text : `${text}/${same[0]?.protocol ?? ''}`))
    .join(' ');
}

/** One pool of a network's addresses. */
export interface Pool {
  readonly subnet: string;
  /** Addresses that can be leased, those in use included; null for more than a number can count. */
  readonly size: number | null;
  readonly used: number;
}

/** The pools of the attachments of one network, from the newest configuration that an ADD of it read. */
export function poolsOf(entries: readonly InventoryEntry[]): Pool[] {
  const raw = entries.flatMap(({ plugins }) => plugins.filter(({ ipam }) => ipam !== undefined)).at(-1);
  const configured = raw === undefined ? undefined : configureIpam(raw);
  if (configured === undefined || !('settings' in configured)) return [];
  const leased = entries.flatMap(({ leaseFiles }) => leaseFiles.map((file) => file.replace(/.*\//, '')));
  return configured.settings.rangeSets.flat().map(({ subnet, first, last, gateway }) => {
    const includesGateway = compareAddresses(gateway, first) >= 0 && compareAddresses(gateway, last) <= 0;
    const size = last.value - first.value + 1n - (includesGateway ? 1n : 0n);
    const isIn = (text: string): boolean => text.includes(':') === (subnet.address.family === 'ipv6');
    return {
      subnet: formatCidr(subnet),
      size: size > BigInt(Number.MAX_SAFE_INTEGER) ? null : Number(size),
      used: leased.filter(isIn).length,
    };
  });
}

function publishedPorts({ plugins }: InventoryEntry): PublishedPort[] {
  return plugins
    .filter(({ type }) => type === 'portmap')
    .flatMap((raw) => {
      const configured = configurePortmap(raw);
      return 'settings' in configured ? (configured.settings.mappings ?? []) : [];
    })
    .map(({ protocol, hostPort, containerPort, range, hostAddress }) => ({
      protocol,
      host: hostPort,
      container: containerPort,
      range,
      address: hostAddress === undefined ? '' : formatAddress(hostAddress),
    }));
}

/** As the plugins of the list choose it. */
function backendOf({ plugins }: InventoryEntry): string {
  const named = plugins
    .filter(({ type }) => type === 'firewall' || type === 'portmap')
    .map(({ backend }) => (typeof backend === 'string' && backend !== '' ? backend : undefined));
  const unnamed = named.length === 0 || named.includes(undefined);
  const chosen = named.filter((name) => name !== undefined);
  return [...new Set([...chosen, ...(unnamed ? [nodeBackend()] : [])])].join(', ');
}

function nodeBackend(): string {
  try {
    return chooseBackend(undefined);
  } catch {
    return 'unknown';
  }
}
