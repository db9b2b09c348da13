/**
 * Every name that the plugin gives to a chain or table in an allocation's namespace. DEL and ADD over another back end's rules find rules by
 * these names alone, because Nomad's DEL has no arguments. The first five are consul-cni's.
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

/** The built-in chains with jumps to the plugin's chains, by table. */
export const HOOKS_OF = {
  nat: ['PREROUTING', 'OUTPUT'],
  filter: ['INPUT', 'OUTPUT'],
} as const;

/** The table of the nftables back end, of family inet; consul-cni's announced nftables version uses the same. */
export const NFT_TABLE = 'consul_tproxy';
