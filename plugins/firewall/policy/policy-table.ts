import type { NodeConfig } from '../../../shared/config/node-config.ts';
import type {
  NftChain,
  NftElement,
  NftRule,
  NftSet,
  NftStatement,
  NftTable,
} from '../../../shared/packetfilter/nftables/model.ts';

/**
 * The node's policy (`isolation` and `egress` of /etc/weft/weft.json) in nf_tables, a table of its own (`inet weft_policy`) on every back
 * end: what a base chain rejects is lost, whatever other tables, iptables' NOMAD-ADMIN chain or firewalld accept.
 *
 *     forward (base chain)      ct state established,related accept
 *                               ct status dnat accept                                   published ports
 *                               iifname @networks jump from_networks
 *     from_networks             iifname . oifname @within accept                        unless "allocation"
 *                               oifname @networks counter reject                        unless "none"
 *                               ip daddr <egress.allow> accept                          one rule a prefix
 *                               ip daddr <egress.deny> counter reject
 *     set networks              "br0"                                                   interfaces of the host that lead to containers
 *     set within                "br0" . "br0"
 *
 * Frames between ports of one bridge do not pass this hook: for "allocation", the bridge plugin isolates the ports.
 */
export const POLICY_TABLE: NftTable = {
  family: 'inet',
  name: 'weft_policy',
  comment: 'isolation and egress of /etc/weft/weft.json',
};

export const NETWORKS: NftSet = { table: POLICY_TABLE, name: 'networks', key: ['ifname'] };
export const WITHIN: NftSet = { table: POLICY_TABLE, name: 'within', key: ['ifname', 'ifname'] };

const FROM_NETWORKS: NftChain = { table: POLICY_TABLE, name: 'from_networks' };
/** Before weft_firewall and other programs' filters. */
const FORWARD: NftChain = {
  table: POLICY_TABLE,
  name: 'forward',
  hook: { type: 'filter', hook: 'forward', priority: -11 },
};

export const POLICY_SETS: readonly NftSet[] = [NETWORKS, WITHIN];

export interface PolicyChain {
  readonly chain: NftChain;
  readonly rules: readonly NftRule[];
}

export type NodePolicy = Pick<NodeConfig, 'isolation' | 'egress'>;

/** Whether there is anything to enforce. */
export function isPolicy({ isolation = 'none', egress }: NodePolicy): boolean {
  return isolation !== 'none' || (egress?.deny.length ?? 0) > 0;
}

/** In the order of their creation: a chain must exist before a rule jumps to it. */
export function policyChains({ isolation = 'none', egress }: NodePolicy): PolicyChain[] {
  const accept = { kind: 'accept' } as const;
  const within: NftStatement = { kind: 'lookup', fields: ['iifname', 'oifname'], set: WITHIN };
  const toNetwork: NftStatement = { kind: 'lookup', fields: ['oifname'], set: NETWORKS };
  return [
    chainOf(FROM_NETWORKS, [
      ...(isolation === 'allocation' ? [] : [{ statements: [within, accept] }]),
      ...(isolation === 'none'
        ? []
        : [{ statements: [toNetwork, ...REJECT], comment: `isolation: ${isolation}` }]),
      ...(egress?.allow ?? []).map((prefix) => ({
        statements: [...destination(prefix), accept],
        comment: 'egress.allow',
      })),
      ...(egress?.deny ?? []).map((prefix) => ({
        statements: [...destination(prefix), ...REJECT],
        comment: 'egress.deny',
      })),
    ]),
    chainOf(FORWARD, [
      { statements: [{ kind: 'ct state', states: ['established', 'related'] }, accept] },
      { statements: [{ kind: 'ct status dnat' }, accept] },
      {
        statements: [
          { kind: 'lookup', fields: ['iifname'], set: NETWORKS },
          { kind: 'jump', chain: FROM_NETWORKS.name },
        ],
      },
    ]),
  ];
}

/** @param name of an interface of the host that leads to containers: the bridge, or the gateway interface of its VLAN */
export function networkElements(name: string): NftElement[] {
  return [
    { set: NETWORKS, key: [name] },
    { set: WITHIN, key: [name, name] },
  ];
}

/** A connection fails at once, instead of a time-out. */
const REJECT: readonly NftStatement[] = [
  { kind: 'counter' },
  { kind: 'reject', with: 'icmpx port-unreachable' },
];

/** nft(8) prints no comparison with a prefix of length 0. */
function destination(prefix: string): NftStatement[] {
  if (!prefix.endsWith('/0')) return [{ kind: 'address', side: 'daddr', cidr: prefix }];
  return [{ kind: 'nfproto', family: prefix.includes(':') ? 'ipv6' : 'ipv4' }];
}

function chainOf(chain: NftChain, rules: readonly Omit<NftRule, 'chain'>[]): PolicyChain {
  return { chain, rules: rules.map((rule) => ({ chain, ...rule })) };
}
