import type { AddressFamily } from '../../net/address.ts';

/** A unicast route (linux/rtnetlink.h). Either a gateway or an outgoing link must be given. */
export interface RouteSpec {
  /** CIDR; `0.0.0.0/0` and `::/0` are the default routes. Bits behind the prefix are cleared. */
  readonly destination: string;
  readonly gateway?: string;
  /** Index of the outgoing link. */
  readonly link?: number;
  /** Preferred source address. */
  readonly source?: string;
  /** Metric; lower wins. Default 0 (IPv4), 1024 (IPv6). */
  readonly priority?: number;
  /** Default 254, main. */
  readonly table?: number;
  /** 0 global, 253 link, 254 host. Default: link without gateway, else global. */
  readonly scope?: number;
  readonly mtu?: number;
  readonly advmss?: number;
  /** The gateway is directly reachable through `link` although no address says so. */
  readonly onLink?: boolean;
}

export interface RouteInfo {
  readonly destination: string;
  readonly family: AddressFamily;
  readonly gateway: string | undefined;
  readonly link: number | undefined;
  readonly source: string | undefined;
  readonly priority: number;
  readonly table: number;
  readonly scope: number;
  /** RTN_*: 1 unicast, 2 local, 3 broadcast, 6 blackhole, 7 unreachable, ... */
  readonly type: number;
  /** RTPROT_*: 2 kernel, 3 boot, 4 static, 9 router advertisement. */
  readonly protocol: number;
  readonly mtu: number | undefined;
  readonly advmss: number | undefined;
  readonly onLink: boolean;
  /** More than one way (ECMP): one entry each; `gateway` and `link` are those of the first. */
  readonly hops: readonly { readonly gateway: string | undefined; readonly link: number }[];
}

export interface RouteFilter {
  readonly family?: AddressFamily;
  /** Default 254, main. */
  readonly table?: number;
  readonly link?: number;
}
