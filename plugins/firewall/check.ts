import { CniCode, CniError } from '../../shared/cni/errors.ts';
import type { Invocation } from '../../shared/cni/plugin.ts';
import { BACKENDS, chosenBackend, possibleBackends } from './backends.ts';
import type { FirewallSettings } from './config.ts';
import { planFirewall } from './plan.ts';

/**
 * The container must be complete in the back end that an ADD would use now, or in another one: the node may have been moved to
 * another back end since this container's ADD.
 */
export function check(call: Invocation<FirewallSettings>): void {
  const plan = planFirewall(call, call.config);
  const chosen = chosenBackend(call.config);
  const missing = BACKENDS[chosen].missing(plan);
  if (missing === undefined) return;
  const others = possibleBackends(call.config).filter((name) => name !== chosen);
  if (others.some((name) => isComplete(() => BACKENDS[name].missing(plan)))) return;
  throw new CniError(CniCode.Internal, `firewall rules are not complete: ${missing}`);
}

/** A back end that this host cannot use holds nothing. */
function isComplete(missing: () => string | undefined): boolean {
  try {
    return missing() === undefined;
  } catch (thrown) {
    if (thrown instanceof CniError) return false;
    throw thrown;
  }
}
