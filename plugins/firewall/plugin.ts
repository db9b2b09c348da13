import { toCniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { runAll } from '../../shared/cni/undo.ts';
import { addressesOf, earlierAddresses, type ContainerAddresses } from './container-addresses.ts';
import { BACKENDS, chosenBackend, possibleBackends } from './backends.ts';
import { check } from './check.ts';
import { configure, DEFAULT_ZONE, type FirewallSettings } from './config.ts';
import { hostsByFamily, planFirewall } from './plan.ts';
import { collectPolicy, enforcePolicy } from './policy/policy.ts';
import { warnOfDrops } from './warnings.ts';

/** Lets containers' traffic through the host's firewall: docs/reference/plugins/firewall.md. */
export const plugin: Plugin<FirewallSettings> = {
  name: 'firewall',
  supportedVersions: CNI_VERSIONS,
  configure,
  add,
  del,
  check,
  gc,
  status: ({ config }) => BACKENDS[chosenBackend(config)].ready(),
};

function add(call: Invocation<FirewallSettings>): CniResult {
  const plan = planFirewall(call, call.config);
  enforcePolicy(plan);
  BACKENDS[chosenBackend(call.config)].add(plan, call.warn);
  removeEarlier(call);
  warnOfDrops(plan, call.warn);
  return call.prevResult ?? { interfaces: [], ips: [], routes: [], dns: {} };
}

function del(call: Invocation<Partial<FirewallSettings>>): void {
  remove(call, addressesOf(call));
}

/** Rules of addresses that only an earlier ADD of the container had, for example before its lease was lost. A failure is only a warning. */
function removeEarlier(call: Invocation<FirewallSettings>): void {
  try {
    const earlier = earlierAddresses(call);
    if (earlier.known.length > 0) remove(call, earlier);
  } catch (thrown) {
    call.warn(`could not remove firewall rules of an earlier ADD: ${toCniError(thrown).message}`);
  }
}

function remove(call: Invocation<Partial<FirewallSettings>>, { own, known }: ContainerAddresses): void {
  const { network, containerId, config, warn } = call;
  const removal = {
    network,
    containerId,
    addresses: hostsByFamily(own),
    known: hostsByFamily(known),
    zone: config.zone ?? DEFAULT_ZONE,
  };
  runAll(
    possibleBackends(config).map((name) => () => BACKENDS[name].remove(removal, warn)),
    warn,
  );
}

function gc({ network, validAttachments, config, warn }: Invocation<Partial<FirewallSettings>>): void {
  if (validAttachments === undefined) return;
  const collection = { network, valid: validAttachments, zone: config.zone ?? DEFAULT_ZONE };
  runAll(
    [
      ...possibleBackends(config).map((name) => () => BACKENDS[name].collect(collection, warn)),
      collectPolicy,
    ],
    warn,
  );
}
