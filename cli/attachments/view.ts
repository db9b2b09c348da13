import * as z from 'zod/mini';
import { publishedPorts, type PublishedPort } from '../../plugins/portmap/published.ts';
import type { InventoryEntry } from '../../shared/attachments/inventory.ts';
import { chooseBackend } from '../../shared/packetfilter/select.ts';
import { withoutPrefixLength } from '../../shared/net/address.ts';

/** What operators call an attachment by, and what it has: for `weft status` and `weft show`. */
export const viewSchema = z.strictObject({
  network: z.string(),
  container: z.string(),
  interface: z.nullable(z.string()),
  /** From Nomad's CNI_ARGS; null for other runtimes. */
  job: z.nullable(z.string()),
  group: z.nullable(z.string()),
  addresses: z.array(z.string()),
  ports: z.array(
    z.strictObject({
      protocol: z.string(),
      host: z.int(),
      container: z.int(),
      range: z.int(),
      address: z.string(),
    }),
  ),
  /** `iptables`, `nftables` or `firewalld`; several if the plugins of the list name different ones. */
  backend: z.string(),
  addedAt: z.string(),
  ageSeconds: z.int(),
  state: z.enum(['running', 'gone', 'unknown']),
  reason: z.string(),
});

export type AttachmentView = z.output<typeof viewSchema>;

export function viewOf(entry: InventoryEntry): AttachmentView {
  const args = new Map(entry.args);
  return {
    network: entry.network,
    container: entry.containerId,
    interface: entry.ifname ?? null,
    job: args.get('NOMAD_JOB_ID') ?? null,
    group: args.get('NOMAD_GROUP_NAME') ?? null,
    addresses: entry.addresses.map(withoutPrefixLength),
    ports: publishedPorts(entry.plugins),
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
