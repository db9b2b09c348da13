import { readNodeConfig } from '../config/node-config.ts';
import { findTools } from './iptables/tools.ts';

export type Backend = 'iptables' | 'nftables';

/**
 * Which packet filter rules go to: what the network's configuration says, else the node's (/etc/weft/weft.json), else iptables
 * where it is installed (Nomad, its clean-up and operators look there), else nf_tables, which needs no program at all.
 */
export function chooseBackend(explicit: Backend | undefined): Backend {
  return explicit ?? readNodeConfig().backend ?? (findTools('ipv4') === undefined ? 'nftables' : 'iptables');
}
