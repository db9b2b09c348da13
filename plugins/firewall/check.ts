import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import { validNodeConfig, type NodeConfig } from '../../shared/config/node-config.ts';
import type { ConfigurationChange } from './backend.ts';
import { BACKENDS, chosenBackend, possibleBackends, type BackendName } from './backends.ts';
import type { FirewallSettings } from './config.ts';
import { checkPolicy } from './policy/policy.ts';
import { planFirewall, type FirewallPlan } from './plan.ts';

/**
 * Whether the container is let through as it was set up. The network's configuration, or the node's, may have changed since its ADD:
 * that is a warning which names the key, because Nomad rebuilds the network of every allocation whose CHECK fails.
 */
export function check(call: Invocation<FirewallSettings>): void {
  const plan = planFirewall(call, call.config);
  const node = validNodeConfig(call.warn);
  checkBackend(call, plan, node);
  checkPolicy(call, plan, node);
}

function checkBackend(call: Invocation<FirewallSettings>, plan: FirewallPlan, node: NodeConfig): void {
  const chosen = chosenBackend(call.config, node);
  const now = lookIn(chosen, plan);
  if (now.missing === undefined) {
    warnOf(now.changes, call);
    return;
  }
  for (const other of possibleBackends(call.config)) {
    if (other === chosen) continue;
    const there = lookIn(other, plan);
    if (there.missing !== undefined) continue;
    call.warn(
      `"backend" is now ${chosen}, but the rules of container ${call.containerId} are in ${other}; they still work`,
    );
    warnOf(there.changes, call);
    return;
  }
  throw now.missing instanceof CniError
    ? now.missing
    : new CniError(CniCode.Internal, `firewall rules are not complete: ${now.missing}`);
}

interface Found {
  /** What is missing, or why this host cannot use the back end. */
  readonly missing: string | CniError | undefined;
  readonly changes: readonly ConfigurationChange[];
}

function lookIn(name: BackendName, plan: FirewallPlan): Found {
  const changes: ConfigurationChange[] = [];
  try {
    const missing = BACKENDS[name].missing(plan, (change) => void changes.push(change));
    return { missing, changes };
  } catch (thrown) {
    if (thrown instanceof CniError) return { missing: thrown, changes: [] };
    throw thrown;
  }
}

/** One line a key: IPv4 and IPv6 differ in the same way. */
function warnOf(changes: readonly ConfigurationChange[], { warn, containerId }: Invocation<unknown>): void {
  for (const { key, found } of new Map(changes.map((change) => [change.key, change])).values())
    warn(`"${key}" has changed since ADD of container ${containerId}: ${found}`);
}
