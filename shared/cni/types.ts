/** Shapes of CNI results, as CNI SPEC 1.1.0 "Success" has them; every other version is converted at the edge. */
export interface CniInterface {
  name: string;
  mac?: string;
  /** Bytes. 1.1.0 only. */
  mtu?: number;
  /** Path of the network namespace; absent for interfaces on the host. */
  sandbox?: string;
  socketPath?: string;
  pciID?: string;
}

export interface CniIp {
  /** Index into `interfaces`. Nomad's agent panics on one that is out of range: emit strictly valid ones. */
  interface?: number;
  /** Address with prefix length, canonical text: `172.26.64.5/20`. */
  address: string;
  gateway?: string;
}

export interface CniRoute {
  dst: string;
  gw?: string;
  mtu?: number;
  advmss?: number;
  priority?: number;
  table?: number;
  scope?: number;
}

export interface CniDns {
  nameservers?: string[];
  domain?: string;
  search?: string[];
  options?: string[];
}

/** The suite's one internal result, in the newest shape. `dns` is always there and may be empty. */
export interface CniResult {
  interfaces: CniInterface[];
  ips: CniIp[];
  routes: CniRoute[];
  dns: CniDns;
  /** Keys of a prevResult that the specification does not name; carried through unchanged. */
  unknown?: Readonly<Record<string, unknown>>;
}

export const CNI_VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
export type CniVersion = (typeof CNI_VERSIONS)[number];
