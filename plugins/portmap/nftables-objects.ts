import { formatAddress, formatCidr, networkOf, parseAddress } from '../../shared/net/address.ts';
import { portmapChain, type Attachment } from '../../shared/packetfilter/names.ts';
import { compileRawArgs } from '../../shared/packetfilter/nftables/compile.ts';
import type {
  NftChain,
  NftElement,
  NftField,
  NftRule,
  NftSet,
  NftStatement,
  NftTable,
  NftType,
} from '../../shared/packetfilter/nftables/model.ts';
import type { Family } from '../../shared/packetfilter/ruleset.ts';
import type { Forwarding, Released } from './backend.ts';
import { claimOf, type Claim, type Mapping, type Protocol } from './mapping.ts';

/**
 * Port mappings in nf_tables, a table of our own per family (`ip weft_hostports`, `ip6 weft_hostports`):
 *
 *     prerouting, output    fib daddr type local ip daddr . meta l4proto . th dport vmap @address_ports
 *                           fib daddr type local meta l4proto . th dport vmap @ports
 *     map ports             tcp . 8080 : jump CNI-DN-<hash>                      one element a port
 *     CNI-DN-<hash>         ip saddr <own subnet> meta mark set mark or <bit>    one chain a container
 *                           meta l4proto tcp th dport 8080 dnat to <container>:80
 *     postrouting           ct status dnat mark and <bit> == <bit> masquerade
 *
 * A connection is found in a map, whatever the number of mappings; a container's chain holds only its own. Its conditions
 * stand in its own rules, so that one network's do not meet another's.
 */
export function tableOf(family: Family): NftTable {
  return {
    family: family === 'ipv4' ? 'ip' : 'ip6',
    name: 'weft_hostports',
    comment: 'port mappings of the weft portmap plugin',
  };
}

/** For mappings to every address of the host. */
export function portsMap(family: Family): NftSet {
  return { table: tableOf(family), name: 'ports', key: PORT_KEY, data: 'verdict' };
}

/** For mappings to one address of the host; looked up first. */
export function addressPortsMap(family: Family): NftSet {
  const address: NftType = family === 'ipv4' ? 'ipv4_addr' : 'ipv6_addr';
  return { table: tableOf(family), name: 'address_ports', key: [address, ...PORT_KEY], data: 'verdict' };
}

export function baseChain(family: Family, name: 'prerouting' | 'output' | 'postrouting'): NftChain {
  const priority = name === 'postrouting' ? 100 : -100;
  return { table: tableOf(family), name, hook: { type: 'nat', hook: name, priority } };
}

/** The same in prerouting (from outside) and output (from this host). */
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

/** Only what was led away here: another program may use the same mark for something else. */
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

/** `name: "net" id: "container"`, what comments of chains and elements begin with. */
export function ownerText({ network, containerId }: Attachment): string {
  // nft(8) cannot print a quote inside of a comment so that it can read it back.
  return `name: ${network} id: ${containerId}`;
}

/** Nobody for a comment that may have been cut: half an id would be another container's. */
export function ownerOf(comment = ''): Attachment | undefined {
  if (Buffer.byteLength(comment) >= COMMENT_BYTES) return undefined;
  const parts = /^name: ([\w.-]+) id: ([\w.-]+)$/.exec(comment);
  return parts === null ? undefined : { network: parts[1] ?? '', containerId: parts[2] ?? '' };
}

/** The container's chain, in order. Rules that lead away carry what they lead where in their comment: DEL reads it back. */
export function containerRules(forwarding: Forwarding): Pick<NftRule, 'statements' | 'comment'>[] {
  const { settings, mappings, family } = forwarding;
  const conditions = conditionsOf(settings.conditions[family], family);
  return [
    ...markedSources(forwarding).map((source) => ({
      statements: [
        ...conditions,
        ...source,
        { kind: 'set mark bits', bits: 2 ** settings.markMasqBit } as const,
      ],
    })),
    ...mappings.map((mapping) => ({
      statements: [...conditions, ...portTest(mapping), destination(forwarding, mapping)],
      comment: recordText(forwarding, mapping),
    })),
  ];
}

/** The map elements of a mapping, one a port. */
export function elementsOf(forwarding: Forwarding, mapping: Mapping): NftElement[] {
  const chain = containerChain(forwarding, forwarding.family);
  return keysOf(claimOf(mapping), forwarding.family).map(({ set, key }) => ({
    set,
    key,
    data: { kind: 'jump', chain: chain.name },
    ...(chain.comment === undefined ? {} : { comment: chain.comment }),
  }));
}

export interface PortKey {
  readonly set: NftSet;
  readonly key: readonly string[];
}

/** The same text for the same port of the same map. */
export function keyText({ set, key }: PortKey): string {
  return `${set.name} ${key.join(' ')}`;
}

export function keysOf({ protocol, first, last, address }: Claim, family: Family): PortKey[] {
  const ports = Array.from({ length: last - first + 1 }, (_, at) => String(first + at));
  return address === undefined
    ? ports.map((port) => ({ set: portsMap(family), key: [protocol, port] }))
    : ports.map((port) => ({ set: addressPortsMap(family), key: [address, protocol, port] }));
}

/** What a rule's comment says that it leads where; undefined for a rule that leads nothing away. */
export function readRecord(comment: string | undefined): (Claim & Released) | undefined {
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
/** What nf_tables keeps of a comment, without its NUL. */
const COMMENT_BYTES = 127;

function conditionsOf(words: readonly string[], family: Family): NftStatement[] {
  if (words.length === 0) return [];
  const expressions = compileRawArgs(
    tableOf(family).family,
    words,
    family === 'ipv4' ? 'conditionsV4' : 'conditionsV6',
  );
  return [{ kind: 'rawArgs', args: words, expressions }];
}

function recordText({ container }: Forwarding, mapping: Mapping): string {
  const { protocol, first, last, address } = claimOf(mapping);
  return `${protocol} ${first}-${last} ${address ?? '*'} > ${formatAddress(container.address)}`;
}

/** Whose connections must come back through this host: the container's own subnet (hairpin), this host's loopback, or everybody. */
function markedSources({ settings, container, family }: Forwarding): NftStatement[][] {
  if (!settings.snat) return [];
  if (settings.masqAll) return [[]];
  const own: NftStatement[] = [{ kind: 'address', side: 'saddr', cidr: formatCidr(networkOf(container)) }];
  return family === 'ipv4' ? [own, [{ kind: 'address', side: 'saddr', cidr: '127.0.0.1' }]] : [own];
}

function portTest(mapping: Mapping): NftStatement[] {
  const { protocol, first, last, address } = claimOf(mapping);
  const host: NftStatement[] =
    address === undefined ? [] : [{ kind: 'address', side: 'daddr', cidr: address }];
  return [...host, { kind: 'l4proto', protocol }, { kind: 'dport', first, last }];
}

/**
 * A run of ports keeps its distance from the first one only when both runs begin alike: nf_tables otherwise picks any port of
 * the run. Runs that are shifted are written port by port before they come here (see `splitShifted`).
 */
function destination({ container, family }: Forwarding, { containerPort, range }: Mapping): NftStatement {
  const port = { first: containerPort, last: containerPort + range - 1 };
  const target = {
    kind: 'dnat',
    family: family === 'ipv4' ? 'ip' : 'ip6',
    address: formatAddress(container.address),
  } as const;
  // Without a port the packet keeps its own.
  return range > 1 ? target : { ...target, port };
}

/** Mappings whose run of ports leads to another run become one mapping a port. */
export function splitShifted(mappings: readonly Mapping[]): Mapping[] {
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
