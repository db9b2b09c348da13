import type { PortRange, PortRanges } from './port-ranges.ts';

export type { PortRange };

/**
 * Rules as data, with iptables' terms. Plugins build them; drivers make the kernel match them. Values are canonical (addresses masked and in their
 * shortest text), so that a rule equals the same rule read back from the kernel.
 */
export type Family = 'ipv4' | 'ipv6';
export type TableName = 'filter' | 'nat';

/** `! value` when negated. */
export interface Negatable {
  readonly value: string;
  readonly negated?: boolean;
}

export interface Rule {
  /** CIDR text as iptables-save prints it: `10.0.0.2/32`. */
  readonly source?: Negatable;
  readonly destination?: Negatable;
  readonly inInterface?: Negatable;
  readonly outInterface?: Negatable;
  readonly protocol?: 'tcp' | 'udp' | 'sctp' | 'icmp' | 'icmpv6';
  readonly matches?: readonly Match[];
  readonly target: Target;
}

export type Match =
  | { readonly kind: 'comment'; readonly comment: string }
  | {
      readonly kind: 'conntrack';
      readonly states: readonly ('NEW' | 'RELATED' | 'ESTABLISHED' | 'INVALID')[];
    }
  | { readonly kind: 'addrtype'; readonly destinationType: 'LOCAL' }
  | { readonly kind: 'multiport'; readonly destinationPorts: readonly PortRange[] }
  /** `-m tcp --dport N`: which of tcp, udp, sctp follows the rule's protocol. */
  | { readonly kind: 'port'; readonly destinationPort: PortRange }
  | { readonly kind: 'mark'; readonly value: number; readonly mask: number; readonly negated?: boolean }
  | { readonly kind: 'owner'; readonly uid: { readonly first: number; readonly last: number } }
  /** An operator's arguments (portmap's conditionsV4/V6), passed on unchanged. */
  | { readonly kind: 'rawArgs'; readonly args: readonly string[] };

export type Target =
  | { readonly kind: 'jump'; readonly chain: string }
  | { readonly kind: 'accept' | 'drop' | 'return' }
  | { readonly kind: 'masquerade' }
  | { readonly kind: 'mark'; readonly value: number; readonly mask: number }
  /** `to` as iptables prints it: `10.0.0.2:80`, `[fd00::2]:80`, `10.0.0.2`, `10.0.0.2:8000-8099/8000`. */
  | { readonly kind: 'dnat'; readonly to: string }
  | { readonly kind: 'redirect'; readonly port: number }
  | {
      readonly kind: 'reject';
      readonly with: 'tcp-reset' | 'icmp-port-unreachable' | 'icmp6-port-unreachable';
    };

/**
 * The desired state of parts of one table; everything else stays unchanged. A driver reads the table and commits the difference as one
 * transaction; a second `apply` of the same change commits nothing.
 */
export interface TableChange {
  readonly family: Family;
  readonly table: TableName;
  /** Chains that exist afterwards; contents kept. */
  readonly ensureChains?: readonly string[];
  /** Chains that hold exactly these rules afterwards. */
  readonly setChains?: readonly { readonly chain: string; readonly rules: readonly Rule[] }[];
  /** Rules that are in their chain exactly once afterwards, applied one after the other. */
  readonly ensureRules?: readonly EnsuredRule[];
  /** All rules of `chain` that jump to `to` are replaced by `rules` (appended, in order); with none, they are removed. */
  readonly setJumps?: readonly {
    readonly chain: string;
    readonly to: string;
    readonly rules: readonly Rule[];
  }[];
  /** Rules to insert at given places, for repair (restore.ts). */
  readonly insertRules?: readonly InsertedRules[];
  /** Rules to remove, every copy; a missing rule or chain is no error. */
  readonly removeRules?: readonly RemovedRules[];
  /** Chains to flush and delete if they exist, with all rules of the table that jump to them. */
  readonly deleteChains?: readonly (string | ((chain: string) => boolean))[];
}

/**
 * - `first`: at the head of its chain, moved there if another rule precedes it.
 * - `prepended`: inserted at the head if absent.
 * - `last`: appended if absent.
 */
export interface EnsuredRule {
  readonly chain: string;
  readonly rule: Rule;
  readonly at: 'first' | 'prepended' | 'last';
  /** With `first`: rules that jump to these chains may precede this one. */
  readonly behind?: readonly string[];
}

/** `before` counts the rules of the chain as `plan` read it; its length appends. Entries of one chain come in the order of `before`. */
export interface InsertedRules {
  readonly chain: string;
  readonly before: number;
  readonly rules: readonly Rule[];
}

/** One rule (cheap: the others need not be decoded), or all that a predicate selects. */
export type RemovedRules =
  | { readonly chain: string; readonly rule: Rule }
  | { readonly chain: string; readonly match: (rule: Rule) => boolean };

/**
 * A change that depends on the table: `plan` is called under the driver's lock with the table just read, and again if a failed commit makes it
 * necessary to read it again, so it must be pure. What it throws ends the apply.
 */
export interface PlannedChange {
  readonly family: Family;
  readonly table: TableName;
  /** Chains that `plan` or its result needs, as far as they are known: a driver may read them together. */
  readonly reads?: readonly string[];
  readonly plan: (state: TableState) => Omit<TableChange, 'family' | 'table'>;
}

/** One table as read. A rule that is no `Rule` keeps its text; it is never rewritten. */
export interface TableState {
  readonly family: Family;
  readonly table: TableName;
  readonly chains: ReadonlyMap<string, readonly (Rule | UnmanagedRule)[]>;
  /** Policies of the built-in chains; empty for iptables-nft over netlink. */
  readonly policies: ReadonlyMap<string, 'accept' | 'drop'>;
  /** The rules of `chain` that jump or go to chain `to`; cheaper than reading all of a long chain. */
  jumps(chain: string, to: string): readonly (Rule | UnmanagedRule)[];
  /** Whether the chain has these rules in this order; cheaper than reading it, above all when it had them before. */
  holdInOrder(chain: string, rules: readonly Rule[]): boolean;
  /** Whether the chain has this rule; cheaper than reading all of it. */
  holds(chain: string, rule: Rule): boolean;
  /** The rules of `chain` except those whose multiport match excludes these destination ports. */
  forPorts(chain: string, ports: PortRanges): readonly (Rule | UnmanagedRule)[];
}

export interface UnmanagedRule {
  readonly unmanaged: string;
}

export interface PacketFilterDriver {
  /** `iptables-nft`, `iptables-legacy`: for messages and `weft show`. */
  readonly name: string;
  /** @throws CniError if the host lacks the family's programs, or the kernel refuses */
  apply(changes: readonly (TableChange | PlannedChange)[]): void;
  /** @param reads as in {@link PlannedChange} */
  read(family: Family, table: TableName, reads?: readonly string[]): TableState;
  /** Whether this host can change the family's tables: an IPv4-only host may lack ip6tables. */
  supports(family: Family): boolean;
}

export type Protocol = NonNullable<Rule['protocol']>;

/** Numbers of protocols, netinet/in.h. */
export const PROTOCOLS: Readonly<Record<Protocol, number>> = {
  icmp: 1,
  tcp: 6,
  udp: 17,
  icmpv6: 58,
  sctp: 132,
};

export const PROTOCOL_NAMES: ReadonlyMap<number, Protocol> = new Map(
  Object.entries(PROTOCOLS).map(([name, number]) => [number, name as Protocol]),
);
