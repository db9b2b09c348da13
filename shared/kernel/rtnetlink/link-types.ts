/** A link by index or by name. */
export type LinkReference = number | string;

/** A network interface as the kernel describes it (linux/if_link.h). */
export interface LinkInfo {
  readonly index: number;
  readonly name: string;
  /** IFLA_INFO_KIND: `veth`, `bridge`, ...; undefined for hardware and loopback. */
  readonly kind: string | undefined;
  /** Lower case with colons; undefined for links without one. */
  readonly mac: string | undefined;
  readonly mtu: number;
  /** IFF_*, complete (linux/if.h). */
  readonly flags: number;
  /** IFF_UP: administratively up. */
  readonly up: boolean;
  /** RFC 2863 state; what traffic needs is `up` (`unknown` for loopback). */
  readonly operState: OperState;
  /** How many have asked for promiscuous mode. */
  readonly promiscuity: number;
  /** Index of the bridge (or bond, vrf) that it is a port of. */
  readonly master: number | undefined;
  /** IFLA_LINK: index of the veth peer, in the peer's namespace. */
  readonly peerIndex: number | undefined;
  /** IFLA_LINK_NETNSID: id of the peer's namespace as seen from here; undefined when it is this one. */
  readonly peerNamespaceId: number | undefined;
  readonly alias: string | undefined;
  /** For a bridge. */
  readonly bridge: { readonly vlanFiltering: boolean } | undefined;
  /** For a port of a bridge. */
  readonly port: { readonly hairpin: boolean; readonly isolated: boolean } | undefined;
}

export type OperState = 'unknown' | 'notpresent' | 'down' | 'lowerlayerdown' | 'testing' | 'dormant' | 'up';

export interface BridgeSpec {
  readonly name: string;
  /** Given explicitly it never changes; without it the bridge takes the lowest MAC of its ports. */
  readonly mac?: string;
  /** Holds until a port joins: then, unless setLink gave it once more, the smallest MTU of the ports takes its place. */
  readonly mtu?: number;
  readonly vlanFiltering?: boolean;
  readonly up?: boolean;
}

export interface VethSpec {
  readonly name: string;
  readonly mac?: string;
  readonly mtu?: number;
  /** Index of the bridge to join. */
  readonly master?: number;
  readonly up?: boolean;
  /** Cannot be up from birth: the kernel answers ENOTCONN. */
  readonly peer: {
    readonly name: string;
    readonly mac?: string;
    readonly mtu?: number;
    /** Descriptor of the namespace it is born in; default: that of the socket. */
    readonly namespaceFd?: number;
  };
}

/** What to change; an absent field stays. */
export interface LinkChange {
  readonly up?: boolean;
  readonly mtu?: number;
  readonly mac?: string;
  /** Index of the new master; 0 leaves the present one. */
  readonly master?: number;
  readonly promisc?: boolean;
  /** Only with a reference by index: with one by name, the attribute is the reference. */
  readonly name?: string;
  /** At most 255 bytes; empty takes it away. Cannot be given at birth. */
  readonly alias?: string;
}
