import { withoutPrefixLength } from '../../../shared/net/address.ts';
import type {
  NftChain,
  NftElement,
  NftField,
  NftRule,
  NftSet,
  NftStatement,
  NftTable,
} from '../../../shared/packetfilter/nftables/model.ts';
import type { Attachment } from '../../../shared/packetfilter/names.ts';
import type { Family } from '../../../shared/packetfilter/ruleset.ts';
import type { IngressPolicy } from '../config.ts';
import { FAMILIES } from '../plan.ts';

/**
 * The firewall in nf_tables, a table of its own (`inet weft_firewall`):
 *
 *     forward (base chain)      jump ingress_policies
 *                               jump admin_chains
 *                               ct state established,related ip daddr @containers4 accept       the same
 *                               ip saddr @containers4 accept                                    for IPv6
 *     ingress_policies          iifname . oifname vmap @same_bridge
 *                               iifname @policy_bridges oifname @policy_bridges drop
 *     admin_chains              jump <the operator's chain>                                     one rule a name
 *     set containers4           10.88.0.2 comment "name: net1 id: c1"                           one element an address
 *     set policy_bridges        br0                                                             bridges with a policy
 *     map same_bridge           br0 . br0 : return (same-bridge) or drop (isolated)
 *
 * A packet meets the same few rules whatever the number of containers; an address is found by its key.
 */
export const TABLE: NftTable = {
  family: 'inet',
  name: 'weft_firewall',
  comment: 'containers that the weft firewall plugin lets through',
};

const SET_NAMES = { ipv4: 'containers4', ipv6: 'containers6' } as const;

export function containersSet(family: Family): NftSet {
  return { table: TABLE, name: SET_NAMES[family], key: [family === 'ipv4' ? 'ipv4_addr' : 'ipv6_addr'] };
}

export const POLICY_BRIDGES: NftSet = { table: TABLE, name: 'policy_bridges', key: ['ifname'] };
export const SAME_BRIDGE: NftSet = {
  table: TABLE,
  name: 'same_bridge',
  key: ['ifname', 'ifname'],
  data: 'verdict',
};

/** Before other programs' filters (priority 0 and more), so that they neither count nor log what is dropped here. */
export const FORWARD: NftChain = {
  table: TABLE,
  name: 'forward',
  hook: { type: 'filter', hook: 'forward', priority: -10 },
};
export const INGRESS_POLICIES: NftChain = { table: TABLE, name: 'ingress_policies' };
export const ADMIN_CHAINS: NftChain = { table: TABLE, name: 'admin_chains' };
export interface FixedChain {
  readonly chain: NftChain;
  readonly rules: readonly NftRule['statements'][];
}

export const SETS: readonly NftSet[] = [...FAMILIES.map(containersSet), POLICY_BRIDGES, SAME_BRIDGE];

/** In the order of their creation: a chain must exist before a rule jumps to it. */
export const CHAINS: readonly NftChain[] = [ADMIN_CHAINS, INGRESS_POLICIES, FORWARD];

/** Chains with the same rules on every host. */
export const FIXED_CHAINS: readonly FixedChain[] = [
  {
    chain: FORWARD,
    rules: [
      [{ kind: 'jump', chain: INGRESS_POLICIES.name }],
      [{ kind: 'jump', chain: ADMIN_CHAINS.name }],
      ...acceptRules('ipv4'),
      ...acceptRules('ipv6'),
    ],
  },
  {
    chain: INGRESS_POLICIES,
    rules: [
      [{ kind: 'lookup', fields: ['iifname', 'oifname'], set: SAME_BRIDGE }],
      [
        { kind: 'lookup', fields: ['iifname'], set: POLICY_BRIDGES },
        { kind: 'lookup', fields: ['oifname'], set: POLICY_BRIDGES },
        { kind: 'drop' },
      ],
    ],
  },
];

/** Names that the operator's chain cannot have. */
export const OWN_CHAINS: readonly string[] = CHAINS.map(({ name }) => name);

export function adminChain(name: string): NftChain {
  return { table: TABLE, name, comment: "the operator's own rules: the plugin puts none in here" };
}

/** @param host one address as a rule names it, `10.88.0.2/32` */
export function containerElement(attachment: Attachment, family: Family, host: string): NftElement {
  return {
    set: containersSet(family),
    key: [withoutPrefixLength(host)],
    comment: ownerComment(attachment),
  };
}

/** The comment of a container's elements; nf_tables keeps 127 bytes. */
export function ownerComment(attachment: Attachment): string {
  return Buffer.from(ownerText(attachment)).subarray(0, COMMENT_BYTES).toString();
}

/** {@link ownerComment}; undefined if it is cut off. */
export function completeOwnerComment(attachment: Attachment): string | undefined {
  const text = ownerText(attachment);
  return Buffer.byteLength(text) > COMMENT_BYTES ? undefined : text;
}

/** The container that an element's comment names; undefined if it may be cut off. */
export function ownerOfComment(comment = ''): Attachment | undefined {
  if (Buffer.byteLength(comment) >= COMMENT_BYTES) return undefined;
  const parts = /^name: ([\w.-]+) id: ([\w.-]+)$/.exec(comment);
  return parts === null ? undefined : { network: parts[1] ?? '', containerId: parts[2] ?? '' };
}

/** The beginning of the comments of all elements of a network; undefined if the name is too long to be kept completely. */
export function networkPrefix(network: string): string | undefined {
  const prefix = ownerText({ network, containerId: '' });
  return Buffer.byteLength(prefix) < COMMENT_BYTES ? prefix : undefined;
}

/** The elements of a bridge's policy. */
export function policyElements(bridge: string, policy: IngressPolicy): NftElement[] {
  return [
    { set: POLICY_BRIDGES, key: [bridge] },
    { set: SAME_BRIDGE, key: [bridge, bridge], data: { kind: policy === 'isolated' ? 'drop' : 'return' } },
  ];
}

const COMMENT_BYTES = 127;

/** Without quotes: nft(8) cannot read back a comment that contains one. */
function ownerText({ network, containerId }: Attachment): string {
  return `name: ${network} id: ${containerId}`;
}

function acceptRules(family: Family): NftStatement[][] {
  const [saddr, daddr]: readonly [NftField, NftField] =
    family === 'ipv4' ? ['ip saddr', 'ip daddr'] : ['ip6 saddr', 'ip6 daddr'];
  const set = containersSet(family);
  return [
    [
      { kind: 'ct state', states: ['established', 'related'] },
      // In an inet table the rule would otherwise read IPv6 packets at the offset of an IPv4 field.
      { kind: 'nfproto', family },
      { kind: 'lookup', fields: [daddr], set },
      { kind: 'accept' },
    ],
    [{ kind: 'nfproto', family }, { kind: 'lookup', fields: [saddr], set }, { kind: 'accept' }],
  ];
}
