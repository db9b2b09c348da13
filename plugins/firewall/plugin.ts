import { oneAtATime } from '../../shared/attachments/one-at-a-time.ts';
import { toCniError } from '../../shared/cni/errors.ts';
import type { Invocation, Plugin } from '../../shared/cni/plugin.ts';
import type { CniResult } from '../../shared/cni/results.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { runAll, withRollback } from '../../shared/cni/undo.ts';
import {
  addressesOf,
  addressesOfResult,
  earlierAddresses,
  isValid,
  type ContainerAddresses,
} from './container-addresses.ts';
import { BACKENDS, chosenBackend, possibleBackends } from './backends.ts';
import { check } from './check.ts';
import { configure, DEFAULT_ZONE, type FirewallSettings } from './config.ts';
import { noteAddresses, notedAttachments } from './noted-addresses.ts';
import { hostsByFamily, planFirewall, type FirewallPlan } from './plan.ts';
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
  oneAtATime('firewall', call, () => {
    letThrough(call, plan);
  });
  warnOfDrops(plan, call.warn);
  return call.prevResult ?? { interfaces: [], ips: [], routes: [], dns: {} };
}

/** Noted before anything is changed, and the earlier addresses too until their rules are gone. */
function letThrough(call: Invocation<FirewallSettings>, plan: FirewallPlan): void {
  const present = addressesOfResult(call);
  const earlier = earlierAddresses(call);
  withRollback(call.warn, (undo) => {
    noteAddresses(call, [...new Set([...present, ...earlier.known])]);
    undo.push('noted addresses', () => {
      noteAddresses(call, earlier.known);
    });
    BACKENDS[chosenBackend(call.config)].add(plan, call.warn);
  });
  if (earlier.known.length === 0) return;
  try {
    remove(call, earlier);
    noteAddresses(call, present);
  } catch (thrown) {
    call.warn(`could not remove firewall rules of an earlier ADD: ${toCniError(thrown).message}`);
  }
}

function del(call: Invocation<Partial<FirewallSettings>>): void {
  oneAtATime('firewall', call, () => {
    remove(call, addressesOf(call));
    noteAddresses(call, []);
  });
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

function gc(call: Invocation<Partial<FirewallSettings>>): void {
  const { network, validAttachments, config, warn } = call;
  if (validAttachments === undefined) return;
  const collection = { network, valid: validAttachments, zone: config.zone ?? DEFAULT_ZONE };
  const stale = notedAttachments(network).filter((attachment) => !isValid(attachment, validAttachments));
  runAll(
    [
      ...stale.map((attachment) => () => {
        del({ ...call, ...attachment, netns: '', prevResult: undefined });
      }),
      ...possibleBackends(config).map((name) => () => BACKENDS[name].collect(collection, warn)),
      collectPolicy,
    ],
    warn,
  );
}
