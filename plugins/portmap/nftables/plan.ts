import { formatAddress, formatCidr, networkOf, parseAddress } from '../../../shared/net/address.ts';
import { portmapChain, type Attachment } from '../../../shared/packetfilter/names.ts';
import { compileRawArgs } from '../../../shared/packetfilter/nftables/compile.ts';
import type {
  NftChain,
  NftElement,
  NftField,
  NftRule,
  NftSet,
  NftStatement,
  NftTable,
  NftType,
} from '../../../shared/packetfilter/nftables/model.ts';
import type { Family } from '../../../shared/packetfilter/ruleset.ts';
import type { ForwardedPorts, PortForwarding } from '../backend.ts';
import { hostPortsOf, type HostPorts, type PortMapping, type Protocol } from '../mapping.ts';

/**
 * Port mappings in nf_tables: one table per family, `ip weft_hostports` and `ip6 weft_hostports`:
 *
 *     prerouting, output    fib daddr type local ip daddr . meta l4proto . th dport vmap @address_ports
 *                           fib daddr type local meta l4proto . th dport vmap @ports
 *     map ports             tcp . 8080 : jump CNI-DN-<hash>                      one element per port
 *     CNI-DN-<hash>         ip saddr <own subnet> meta mark set mark or <bit>    one chain per container
 *                           meta l4proto tcp th dport 8080 dnat to <container>:80
 *     postrouting           ct status dnat mark and <bit> == <bit> masquerade
 *
 * A map lookup finds the container's chain, at the same cost for any number of mappings. Conditions are part of the container's own rules,
 * so they do not affect other networks.
 */
export function tableOf(family: Family): NftTable {
  return {
    family: family === 'ipv4' ? 'ip' : 'ip6',
    name: 'weft_hostports',
    comment: 'port mappings of the weft portmap plugin',
  };
}

/** Map for mappings that apply to every address of the host. */
export function portsMap(family: Family): NftSet {
  return { table: tableOf(family), name: 'ports', key: PORT_KEY, data: 'verdict' };
}

/** Map for mappings that apply to one address of the host; looked up first. */
export function addressPortsMap(family: Family): NftSet {
  const address: NftType = family === 'ipv4' ? 'ipv4_addr' : 'ipv6_addr';
  return { table: tableOf(family), name: 'address_ports', key: [address, ...PORT_KEY], data: 'verdict' };
}

export function baseChain(family: Family, name: 'prerouting' | 'output' | 'postrouting'): NftChain {
  const priority = name === 'postrouting' ? 100 : -100;
  return { table: tableOf(family), name, hook: { type: 'nat', hook: name, priority } };
}

/** The rules of prerouting (packets from outside) and output (packets from this host). */
export function lookupRules(family: Family): NftStatement[][] {
  const daddr: NftField = family === 'ipv4' ? 'ip daddr' : 'ip6 daddr';
  return [
    [
      { kind: 'fib daddr type local' },
      { kind: 'lookup', fields: [daddr, ...PORT_FIELDS], set: addressPortsMap(family) },
    ],
    [{ kind: 'fib daddr type local' }, { kind: 'lookup', fields: PORT_FIELDS, set: portsMap(family) }],
  ];
}

/** `ct status dnat`, because another program may use the same mark bit. */
export function masqueradeRule(markBit: number): NftStatement[] {
  const bits = 2 ** markBit;
  return [{ kind: 'ct status dnat' }, { kind: 'mark', value: bits, mask: bits }, { kind: 'masquerade' }];
}

export function containerChain(attachment: Attachment, family: Family): NftChain {
  return {
    table: tableOf(family),
    name: portmapChain(attachment),
    comment: shortened(ownerText(attachment)),
  };
}

/** `name: net1 id: container1`, the beginning of comments of chains and elements. */
export function ownerText({ network, containerId }: Attachment): string {
  // No quotes: nft(8) prints them in a comment unescaped and then cannot read its own output.
  return `name: ${network} id: ${containerId}`;
}

/** Undefined for a comment that may be truncated: half of an id could be another container's. */
export function ownerOf(comment = ''): Attachment | undefined {
  if (Buffer.byteLength(comment) >= COMMENT_BYTES) return undefined;
  const parts = /^name: ([\w.-]+) id: ([\w.-]+)$/.exec(comment);
  return parts === null ? undefined : { network: parts[1] ?? '', containerId: parts[2] ?? '' };
}

/** The rules of the container's chain, in order. DNAT rules have a comment that DEL reads ({@link readRecord}). */
export function containerRules(forwarding: PortForwarding): Pick<NftRule, 'statements' | 'comment'>[] {
  const { settings, mappings, family } = forwarding;
  const conditions = conditionsOf(settings.conditions[family], family);
  return [
    ...markStatements(forwarding).map((statements) => ({ statements: [...conditions, ...statements] })),
    ...mappings.map((mapping) => {
      const { statements, comment } = dnatRule(forwarding, mapping);
      return { statements: [...conditions, ...statements], comment };
    }),
  ];
}

/** The rule of one mapping, without the conditions. */
export function dnatRule(
  forwarding: PortForwarding,
  mapping: PortMapping,
): { readonly statements: NftStatement[]; readonly comment: string } {
  return {
    statements: [...portTest(mapping), destination(forwarding, mapping)],
    comment: recordText(forwarding, mapping),
  };
}

/** The rules that mark packets for masquerading, without the conditions. */
export function markStatements(forwarding: PortForwarding): NftStatement[][] {
  const bits = 2 ** forwarding.settings.markMasqBit;
  return markedSources(forwarding).map((source) => [...source, { kind: 'set mark bits', bits }]);
}

/** The map elements of a mapping, one per port. */
export function elementsOf(forwarding: PortForwarding, mapping: PortMapping): NftElement[] {
  const chain = containerChain(forwarding, forwarding.family);
  return keysOf(hostPortsOf(mapping), forwarding.family).map(({ set, key }) => ({
    set,
    key,
    data: { kind: 'jump', chain: chain.name },
    ...(chain.comment === undefined ? {} : { comment: chain.comment }),
  }));
}

/** The key of one port in one of the two maps. */
export interface PortKey {
  readonly set: NftSet;
  readonly key: readonly string[];
}

/** Equal for equal keys; for use in a Map. */
export function keyText({ set, key }: PortKey): string {
  return `${set.name} ${key.join(' ')}`;
}

export function keysOf({ protocol, first, last, address }: HostPorts, family: Family): PortKey[] {
  const ports = Array.from({ length: last - first + 1 }, (_, at) => String(first + at));
  return address === undefined
    ? ports.map((port) => ({ set: portsMap(family), key: [protocol, port] }))
    : ports.map((port) => ({ set: addressPortsMap(family), key: [address, protocol, port] }));
}

/** Reads `tcp 8080-8080 * > 10.88.0.2`, the comment of a DNAT rule; undefined for any other comment. */
export function readRecord(comment: string | undefined): ForwardedPorts | undefined {
  const parts = /^(tcp|udp|sctp) (\d+)-(\d+) (\S+) > (\S+)$/.exec(comment ?? '');
  const [, protocol, first, last, host, container = ''] = parts ?? [];
  if (protocol === undefined || parseAddress(container) === undefined) return undefined;
  return {
    protocol: protocol as Protocol,
    first: Number(first),
    last: Number(last),
    address: host === '*' ? undefined : host,
    containerAddress: container,
  };
}

const PORT_KEY: readonly NftType[] = ['inet_proto', 'inet_service'];
const PORT_FIELDS: readonly NftField[] = ['meta l4proto', 'th dport'];
/** NFT_USERDATA_MAXLEN: nft(8) accepts 128 bytes of comment, the NUL included. */
const COMMENT_BYTES = 127;

function conditionsOf(args: readonly string[], family: Family): NftStatement[] {
  if (args.length === 0) return [];
  const expressions = compileRawArgs(
    tableOf(family).family,
    args,
    family === 'ipv4' ? 'conditionsV4' : 'conditionsV6',
  );
  return [{ kind: 'rawArgs', args, expressions }];
}

function recordText({ container }: PortForwarding, mapping: PortMapping): string {
  const { protocol, first, last, address } = hostPortsOf(mapping);
  return `${protocol} ${first}-${last} ${address ?? '*'} > ${formatAddress(container.address)}`;
}

/** Sources whose replies must return through this host: the container's own subnet (hairpin) and 127.0.0.1, or all. */
function markedSources({ settings, container, family }: PortForwarding): NftStatement[][] {
  if (!settings.snat) return [];
  if (settings.masqAll) return [[]];
  const own: NftStatement[] = [{ kind: 'address', side: 'saddr', cidr: formatCidr(networkOf(container)) }];
  return family === 'ipv4' ? [own, [{ kind: 'address', side: 'saddr', cidr: '127.0.0.1' }]] : [own];
}

function portTest(mapping: PortMapping): NftStatement[] {
  const { protocol, first, last, address } = hostPortsOf(mapping);
  const host: NftStatement[] =
    address === undefined ? [] : [{ kind: 'address', side: 'daddr', cidr: address }];
  return [...host, { kind: 'l4proto', protocol }, { kind: 'dport', first, last }];
}

/**
 * nf_tables maps a range of ports one to one only if host and container ports are equal; otherwise it picks any port of the range.
 * {@link splitShifted} has made such a mapping one mapping per port.
 */
function destination(
  { container, family }: PortForwarding,
  { containerPort, range }: PortMapping,
): NftStatement {
  const port = { first: containerPort, last: containerPort + range - 1 };
  const target = {
    kind: 'dnat',
    family: family === 'ipv4' ? 'ip' : 'ip6',
    address: formatAddress(container.address),
  } as const;
  // Without a port in the target, the packet keeps its own.
  return range > 1 ? target : { ...target, port };
}

/** Replaces a mapping whose host and container ports differ by one mapping per port. */
export function splitShifted(mappings: readonly PortMapping[]): PortMapping[] {
  return mappings.flatMap((mapping) => {
    const { range, hostPort, containerPort } = mapping;
    if (range === 1 || hostPort === containerPort) return [mapping];
    return Array.from({ length: range }, (_, at) => ({
      ...mapping,
      range: 1,
      hostPort: hostPort + at,
      containerPort: containerPort + at,
    }));
  });
}

function shortened(text: string): string {
  return Buffer.from(text).subarray(0, COMMENT_BYTES).toString();
}
