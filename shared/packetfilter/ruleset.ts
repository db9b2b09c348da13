/**
 * Rules as data, in the vocabulary of iptables' own words. Plugins build these; drivers make the kernel match them.
 * Every value is already canonical (addresses masked and in their shortest text), so that a rule built here and the same
 * rule read back from the kernel compare equal.
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
  /** Words an operator wrote (portmap's conditionsV4/V6), passed on as they are. */
  | { readonly kind: 'rawArgs'; readonly args: readonly string[] };

export interface PortRange {
  readonly first: number;
  readonly last: number;
}

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
 * What one table of one family shall look like. Only what is named is touched; everything else stays as it is.
 * A driver reads the table, works out the difference, and commits it as one transaction: all or nothing, and a second
 * `apply` of the same change commits nothing at all.
 */
export interface TableChange {
  readonly family: Family;
  readonly table: TableName;
  /** Chains that exist afterwards; contents kept. */
  readonly ensureChains?: readonly string[];
  /** Chains that hold exactly these rules afterwards. */
  readonly setChains?: readonly { readonly chain: string; readonly rules: readonly Rule[] }[];
  /** Rules that stand in their chain exactly once afterwards, treated one after the other. */
  readonly ensureRules?: readonly EnsuredRule[];
  /** All rules of `chain` that jump to `to` are replaced by `rules` (appended, in order); with none, they are removed. */
  readonly setJumps?: readonly {
    readonly chain: string;
    readonly to: string;
    readonly rules: readonly Rule[];
  }[];
  /** Rules removed wherever they stand in their chain, every copy; a missing one, or a missing chain, is fine. */
  readonly removeRules?: readonly RemovedRules[];
  /** Chains flushed and deleted if they exist; rules anywhere in the table that jump to them are removed first. */
  readonly deleteChains?: readonly (string | ((chain: string) => boolean))[];
}

/**
 * - `first`: at the head of its chain, moved there when something else was put before it.
 * - `prepended`: put at the head when absent, else left where it stands.
 * - `last`: appended when absent, else left where it stands.
 */
export interface EnsuredRule {
  readonly chain: string;
  readonly rule: Rule;
  readonly at: 'first' | 'prepended' | 'last';
  /** With `first`: rules that jump to these chains may stand before this one, if nothing else does. */
  readonly behind?: readonly string[];
}

/** One certain rule (cheap: needs no understanding of the others), or all that a predicate picks. */
export type RemovedRules =
  | { readonly chain: string; readonly rule: Rule }
  | { readonly chain: string; readonly match: (rule: Rule) => boolean };

/**
 * A change that depends on what stands in the table: `plan` is called under the driver's lock with the table just read,
 * and again after every reading that a failed commit makes necessary, so it must be pure. What it throws ends the apply.
 */
export interface PlannedChange {
  readonly family: Family;
  readonly table: TableName;
  /** Chains that `plan`, or what it answers, is going to look at, as far as they are known: a driver may read them in one go. */
  readonly reads?: readonly string[];
  readonly plan: (state: TableState) => Omit<TableChange, 'family' | 'table'>;
}

/** One table as read. Rules a driver cannot express as Rule keep their words, so that nothing foreign is ever lost or rewritten. */
export interface TableState {
  readonly family: Family;
  readonly table: TableName;
  readonly chains: ReadonlyMap<string, readonly (Rule | UnmanagedRule)[]>;
  /** Policies of the kernel's chains; empty for iptables-nft over netlink, whose chains are base chains of nf_tables. */
  readonly policies: ReadonlyMap<string, 'accept' | 'drop'>;
  /** The rules of `chain` that jump or go to chain `to`: cheaper than looking through all of a long chain. */
  jumps(chain: string, to: string): readonly (Rule | UnmanagedRule)[];
  /** Whether this very rule stands in the chain; cheaper than looking for it. */
  holds(chain: string, rule: Rule): boolean;
  /** The rules of `chain` that may be for one of these destination ports (multiport): the others surely are not. */
  forPorts(chain: string, ports: readonly PortRange[]): readonly (Rule | UnmanagedRule)[];
}

export interface UnmanagedRule {
  readonly unmanaged: string;
}

export interface PacketFilterDriver {
  /** `iptables-nft`, `iptables-legacy`, `nft-netlink` … for messages and `weft show`. */
  readonly name: string;
  /** Throws CniError when the family's tool or table is not to be had on this host. */
  apply(changes: readonly (TableChange | PlannedChange)[]): void;
  /** @param reads as in {@link PlannedChange} */
  read(family: Family, table: TableName, reads?: readonly string[]): TableState;
  /** Whether the family can be driven at all (no ip6tables on an IPv4-only host is no error for IPv4). */
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
