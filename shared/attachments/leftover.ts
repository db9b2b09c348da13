/** Something on the host that a plugin made for one container and that names it, for garbage collection. */
export interface Trace {
  readonly network: string;
  readonly containerId: string;
  /** Undefined where the trace belongs to the container and not to one of its interfaces. */
  readonly ifname?: string | undefined;
  /** `interface veth12`, `chain CNI-DN-… of table nat (ipv4, iptables-nft)`. */
  readonly what: string;
  /** Whether the namespace that it leads to exists; `unknown` for rules, of which the addresses tell. */
  readonly namespace: 'exists' | 'gone' | 'unknown';
  /** Of the container, as the trace has them, without prefix length. Read when it is asked. */
  readonly addresses: () => readonly string[];
  /** When it was written, in milliseconds since 1970, if it can be known. */
  readonly writtenAtMs?: number | undefined;
}

/** A plugin's part in garbage collection: the module `traces.ts` of its folder. */
export interface TracesRole {
  /** Every trace of the plugin on this host; changes nothing. */
  traces(): Trace[];
}
