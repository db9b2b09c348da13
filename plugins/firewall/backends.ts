import { findProgram } from '../../shared/process/run.ts';
import { chooseBackend } from '../../shared/packetfilter/choose-backend.ts';
import { readNodeConfig } from '../../shared/config/node-config.ts';
import type { FirewallBackend } from './backend.ts';
import type { FirewallSettings } from './config.ts';
import { firewalldBackend, firewalldRuns } from './firewalld/backend.ts';
import { iptablesBackend } from './iptables/backend.ts';
import { nftablesBackend } from './nftables/backend.ts';

export const BACKENDS = {
  iptables: iptablesBackend,
  nftables: nftablesBackend,
  firewalld: firewalldBackend,
} as const satisfies Readonly<Record<string, FirewallBackend>>;

/**
 * What the network says, else the node (/etc/weft/weft.json), else firewalld where it runs, else iptables where it is
 * installed, else nf_tables. Words that nobody knows count as nothing said, as in the reference.
 */
export function chosenBackend(settings: FirewallSettings): FirewallBackend {
  const named = namedBackend(settings);
  if (named !== undefined) return BACKENDS[named];
  return firewalldRuns() ? firewalldBackend : BACKENDS[chooseBackend(undefined)];
}

/**
 * Where anything of a container may be: everywhere, whatever the configuration says by now, because the node may have been
 * moved from one backend to another since. Asking the bus for firewalld costs as much as all the rest of a DEL: where the
 * network names another backend, it is asked only if firewalld is installed.
 */
export function possibleBackends(settings: Partial<FirewallSettings>): FirewallBackend[] {
  const { firewalld, ...others } = BACKENDS;
  const named = settings.backend ?? '';
  const asksBus = !Object.hasOwn(others, named) || findProgram('firewalld') !== undefined;
  return [...Object.values(others), ...(asksBus ? [firewalld] : [])];
}

type BackendName = keyof typeof BACKENDS;

function namedBackend({ backend }: FirewallSettings): BackendName | undefined {
  return isBackend(backend) ? backend : readNodeConfig().backend;
}

function isBackend(text: string): text is BackendName {
  return Object.hasOwn(BACKENDS, text);
}
