import { findProgram } from '../../shared/process/run-program.ts';
import { chooseBackend } from '../../shared/packetfilter/select.ts';
import { readNodeConfig, type NodeConfig } from '../../shared/config/node-config.ts';
import type { FirewallBackend } from './backend.ts';
import type { FirewallSettings } from './config.ts';
import { firewalldBackend } from './firewalld/backend.ts';
import { isFirewalldRunning } from './firewalld/firewalld.ts';
import { iptablesBackend } from './iptables/backend.ts';
import { nftablesBackend } from './nftables/backend.ts';

export const BACKENDS = {
  iptables: iptablesBackend,
  nftables: nftablesBackend,
  firewalld: firewalldBackend,
} as const satisfies Readonly<Record<string, FirewallBackend>>;

export type BackendName = keyof typeof BACKENDS;

/**
 * The network's `backend`, else the node's (/etc/weft/weft.json), else firewalld if it runs, else iptables if it is installed,
 * else nftables. An unknown `backend` counts as absent, as in the reference.
 */
export function chosenBackend(
  { backend }: Pick<FirewallSettings, 'backend'>,
  node?: NodeConfig,
): BackendName {
  const named = isBackendName(backend) ? backend : (node ?? readNodeConfig()).backend;
  if (named !== undefined) return named;
  return isFirewalldInstalled() && isFirewalldRunning() ? 'firewalld' : chooseBackend(undefined, {});
}

/**
 * The back ends that may hold something of a container, whatever is configured now: the node may have been moved to another one since
 * ADD. Asking for firewalld starts a program: that is done only if the network names it or it is installed.
 */
export function possibleBackends({ backend }: { readonly backend?: string }): BackendName[] {
  const asksFirewalld = backend === 'firewalld' || isFirewalldInstalled();
  return ['iptables', 'nftables', ...(asksFirewalld ? (['firewalld'] as const) : [])];
}

function isFirewalldInstalled(): boolean {
  return findProgram('firewalld') !== undefined;
}

function isBackendName(text: string): text is BackendName {
  return Object.hasOwn(BACKENDS, text);
}
