import { isNodeConfigOfAdd } from '../../shared/attachments/node-config-of-add.ts';
import { readNodeConfig, type NodeConfig } from '../../shared/config/node-config.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import { isSysctlOn } from '../../shared/kernel/sysctl.ts';

/**
 * Whether the port of a new container is isolated because of `"isolation": "allocation"` of the node. Not where frames within a bridge pass the
 * host's firewall (br_netfilter), which then isolates the containers itself: there the kernel bridges connections to published ports of the
 * same network too, and port isolation would break them.
 */
export function isolatesPorts({ isolation }: NodeConfig): boolean {
  return isolation === 'allocation' && !SYSCTLS.every(isSysctlOn);
}

/** For CHECK: whether the node isolates ports, and did so at ADD already. An invalid file is reported by the firewall plugin. */
export function isolationByNode(call: Invocation<unknown>): 'at ADD' | 'later' | undefined {
  try {
    if (!isolatesPorts(readNodeConfig())) return undefined;
    return isNodeConfigOfAdd(call) ? 'at ADD' : 'later';
  } catch {
    return undefined;
  }
}

const SYSCTLS = ['net/bridge/bridge-nf-call-iptables', 'net/bridge/bridge-nf-call-ip6tables'];
