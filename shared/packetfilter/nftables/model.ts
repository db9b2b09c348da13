/**
 * nf_tables objects as data, with nft's terms. `text.ts` writes them as commands of nft(8), `encode.ts` as the kernel's bytes; a test compares
 * the two.
 */
import type { Expression } from './expressions.ts';

export type NftFamily = 'ip' | 'ip6' | 'inet' | 'bridge';

export interface NftTable {
  readonly family: NftFamily;
  readonly name: string;
  readonly comment?: string;
}

export interface NftChain {
  readonly table: NftTable;
  readonly name: string;
  /** Base chains only. */
  readonly hook?: NftHook;
  /** At most 127 bytes. An existing chain keeps its comment. */
  readonly comment?: string;
}

export interface NftHook {
  readonly type: 'nat' | 'filter';
  readonly hook: 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';
  /** As nft prints it: -100 is dstnat, 0 filter, 100 srcnat, -300 raw. */
  readonly priority: number;
  readonly policy?: 'accept' | 'drop';
}

export interface NftRule {
  readonly chain: NftChain;
  readonly statements: readonly NftStatement[];
  /** NFTA_RULE_USERDATA, at most 128 bytes with its NUL (what nft(8) accepts). */
  readonly comment?: string;
}

/** The key of a set is a list of these. */
export type NftField =
  'ip saddr' | 'ip daddr' | 'ip6 saddr' | 'ip6 daddr' | 'meta l4proto' | 'th dport' | 'iifname' | 'oifname';

export type NftType = 'ipv4_addr' | 'ipv6_addr' | 'inet_proto' | 'inet_service' | 'ifname';

export interface NftSet {
  readonly table: NftTable;
  readonly name: string;
  readonly key: readonly NftType[];
  /** Maps only. */
  readonly data?: 'verdict' | readonly NftType[];
  /** Elements are ranges: address prefixes, port ranges. One field only. */
  readonly interval?: boolean;
}

/** One value for each field of the key: `10.0.0.2`, `tcp`, `8080`, `br0`; for intervals also `10.0.0.0/8`, `80-90`. */
export type NftKey = readonly string[];

export interface NftElement {
  readonly set: NftSet;
  readonly key: NftKey;
  readonly data?: NftVerdict | { readonly kind: 'value'; readonly value: NftKey };
  readonly comment?: string;
}

export type NftVerdict =
  | { readonly kind: 'accept' | 'drop' | 'return' }
  | { readonly kind: 'jump' | 'goto'; readonly chain: string };

export type NftStatement =
  | NftVerdict
  /** `ip saddr 10.0.0.0/8`: family follows the address; in inet tables the nfproto test is added, as nft(8) does. */
  | {
      readonly kind: 'address';
      readonly side: 'saddr' | 'daddr';
      readonly cidr: string;
      readonly not?: boolean;
    }
  | {
      readonly kind: 'interface';
      readonly side: 'iifname' | 'oifname';
      readonly name: string;
      readonly not?: boolean;
    }
  | { readonly kind: 'nfproto'; readonly family: 'ipv4' | 'ipv6' }
  | { readonly kind: 'l4proto'; readonly protocol: NftProtocol }
  /** `th dport`: after an `l4proto` statement. */
  | { readonly kind: 'dport'; readonly first: number; readonly last: number }
  | { readonly kind: 'ether saddr'; readonly mac: string }
  | { readonly kind: 'skuid'; readonly first: number; readonly last: number }
  | { readonly kind: 'ct state'; readonly states: readonly ('established' | 'related' | 'new' | 'invalid')[] }
  | { readonly kind: 'ct status dnat' }
  | { readonly kind: 'fib daddr type local' }
  | { readonly kind: 'mark'; readonly value: number; readonly mask: number }
  /** `meta mark set meta mark or BITS`. */
  | { readonly kind: 'set mark bits'; readonly bits: number }
  /** `FIELDS @set`, or `FIELDS vmap @map` when the set maps to verdicts. */
  | {
      readonly kind: 'lookup';
      readonly fields: readonly NftField[];
      readonly set: NftSet;
      readonly not?: boolean;
    }
  | { readonly kind: 'counter' }
  /** An operator's statements in nft's language, and what nft(8) made of them (compile.ts). */
  | {
      readonly kind: 'rawArgs';
      readonly args: readonly string[];
      readonly expressions: readonly Expression[];
    }
  | {
      readonly kind: 'dnat';
      readonly family: 'ip' | 'ip6';
      readonly address: string;
      readonly port?: NftPorts;
    }
  /** `dnat ip to FIELDS map @map`, the map giving address and port. */
  | {
      readonly kind: 'dnat map';
      readonly family: 'ip' | 'ip6';
      readonly fields: readonly NftField[];
      readonly set: NftSet;
    }
  | { readonly kind: 'redirect'; readonly port: number }
  | { readonly kind: 'masquerade' }
  /** tcp-reset, or port unreachable in the packet's own family. */
  | { readonly kind: 'reject'; readonly with: 'tcp reset' | 'icmpx port-unreachable' };

export type NftProtocol = 'tcp' | 'udp' | 'sctp' | 'icmp' | 'icmpv6';

export interface NftPorts {
  readonly first: number;
  readonly last: number;
}
