/**
 * Every name that the plugin gives to something in an allocation's namespace. DEL and the take-over of another backend's rules go by
 * these names alone: Nomad's DEL carries no arguments. The first five are consul-cni's, so that mixed fleets look alike.
 */
export const CHAINS = {
  inbound: 'CONSUL_PROXY_INBOUND',
  inboundRedirect: 'CONSUL_PROXY_IN_REDIRECT',
  output: 'CONSUL_PROXY_OUTPUT',
  outputRedirect: 'CONSUL_PROXY_REDIRECT',
  dns: 'CONSUL_DNS_REDIRECT',
  rejectOut: 'CONSUL_PROXY_REJECT_OUT',
  rejectIn: 'CONSUL_PROXY_REJECT_IN',
} as const;

/** By table, in the order in which a ruleset names them. */
export const CHAINS_OF = {
  nat: [CHAINS.inbound, CHAINS.inboundRedirect, CHAINS.output, CHAINS.outputRedirect, CHAINS.dns],
  filter: [CHAINS.rejectOut, CHAINS.rejectIn],
} as const;

/** The built-in chains that hook ours, by table. */
export const HOOKS_OF = {
  nat: ['PREROUTING', 'OUTPUT'],
  filter: ['INPUT', 'OUTPUT'],
} as const;

/** The nftables backend's one table, of family inet; consul-cni's coming nftables version uses the same. */
export const NFT_TABLE = 'consul_tproxy';
